from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from provision.secrets import MASK, mask

BODY = "S3cr3tValueABCDEFGHijkl0123"

LEAKS = {
    "environment": f"HF_TOKEN={BODY}",
    "short environment": "HF_TOKEN=abc",
    "quoted environment": f'export HUGGING_FACE_HUB_TOKEN="{BODY}"',
    "shape hugging face": f"using hf_{BODY} to log in",
    "shape ngc": f"key nvapi-{BODY}",
    "shape ngc old": f"key {BODY * 3}abcd==",
    "shape aws": "with AKIA" + BODY.upper()[:16],
    "shape github": f"remote: ghp_{BODY}",
    "shape openai": f"sk-{BODY}",
    "shape runpod": "rpa_" + "A1B2" * 8,
    "shape jwt": f"eyJ{BODY}.{BODY}.{BODY}",
    "bearer": f"Authorization: Bearer {BODY}",
    "basic": f"'Authorization': 'Basic {BODY}=='",
    "url login": f"https://someone:{BODY}@registry.example/v2/",
    "url token": f"https://{BODY}@git.example/a/b",
    "signed url": f"https://bucket.example/x?X-Amz-Credential=a&X-Amz-Signature={BODY}&part=1",
    "query token": f"http://localhost:8888/?token={BODY}",
    "docker login": f"docker login nvcr.io -u '$oauthtoken' -p {BODY}",
    "docker auth": f'"auths": {{"nvcr.io": {{"auth": "{BODY}=="}}}}',
    "server arguments": f"ServerArgs(model_path='m', api_key='{BODY}', port=30000)",
    "option": f"launch_server --api-key {BODY} --port 30000",
    "option with =": f"launch_server --admin-api-key={BODY}",
    "hf option": f"huggingface-cli login --token {BODY}",
    "aws file": f"aws_secret_access_key = {BODY}/+x",
    "curl": f"curl -u me:{BODY} http://host/",
    "netrc": f"machine h login me password {BODY}",
    "escaped json": f'{{\\"token\\": \\"{BODY}\\"}}',
    "container environment": f"[{{'name': 'HF_TOKEN', 'value': '{BODY}'}}]",
    "container environment in yaml": f"- name: NGC_API_KEY\n  value: {BODY}",
    "private key": f"-----BEGIN RSA PRIVATE KEY-----\n{BODY}\n-----END RSA PRIVATE KEY-----",
    "secret type": f"api_key=SecretStr('{BODY}')",
    "slurm": f"SLURM_JWT={BODY}",
}

KEPT = [
    "Prefill batch. #new-seq: 1, #new-token: 6, #cached-token: 0, token usage: 0.00, #running-req: 0, #queue-req: 0",
    "Decode batch, #running-req: 2, #token: 8192, token usage: 0.03, gen throughput (token/s): 88.10, #queue-req: 0",
    "skip_tokenizer_init=False, tokenizer_path='/models/some-long-name-1', max_total_tokens=8192, api_key=None",
    "bos_token: '<|begin_of_text|>', eos_token_id: 128009",
    "sha256:344f361284ba3514d0c93fb7c810f4cdbf89c789117cb51ebea8497d2c8ed101",
    "hf_transfer, hf_hub_download, hf_xet",
    "git@github.com:a/b.git",
    "ssh://host/path and http://127.0.0.1:30000/health",
    "Invalid token: unexpected",
    "Basic configuration done",
    "KeyError: 'model.layers.0.self_attn.qkv_proj.weight'",
]


@pytest.mark.parametrize("text", LEAKS.values(), ids=LEAKS.keys())
def test_masks(text: str) -> None:
    masked = mask(text)
    assert BODY[:12] not in masked
    assert MASK in masked
    assert "abc" not in mask("HF_TOKEN=abc")


@pytest.mark.parametrize("text", KEPT)
def test_keeps_what_is_no_secret(text: str) -> None:
    assert mask(text) == text


@pytest.mark.parametrize("text", LEAKS.values(), ids=LEAKS.keys())
def test_masking_twice_changes_nothing_more(text: str) -> None:
    assert mask(mask(text)) == mask(text)


def test_json_stays_json() -> None:
    text = json.dumps({"password": BODY, "nested": {"api_key": BODY, "token": BODY}, "port": 1})
    assert json.loads(mask(text)) == {"password": MASK, "nested": {"api_key": MASK, "token": MASK}, "port": 1}


@given(st.text(max_size=2000))
def test_any_text(text: str) -> None:
    assert isinstance(mask(text), str)
