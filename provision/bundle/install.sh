#!/bin/sh
# Install sgprov from this bundle, then bring this machine to what the bundle is for. Nothing is fetched.
# Needs tar, and Python 3.10 or newer unless the bundle holds one.
#
#   sh install.sh [--tool-only] [--to DIR] [OPTIONS of `sgprov bootstrap`]
set -eu

fail() {
  printf 'error: %s\n' "$1" >&2
  exit "${2:-5}"
}

here=$(cd "$(dirname "$0")" && pwd)
to=${SGPROV_HOME:-${HOME:-/root}/.local/share/sgprov/tool}
tool_only=
while [ $# -gt 0 ]; do
  case $1 in
    --tool-only) tool_only=yes; shift ;;
    --to) to=$2; shift 2 ;;
    *) break ;;
  esac
done
# Called after sgprov's own wheel: the same code is installed once, whatever bundle brings it.
digest=$(sed -n 's/^sgprov==.*sha256:\(.\{12\}\).*/\1/p' "$here"/tool/requirements-*.txt | head -n 1)
version="$to/versions/$digest"

python=
for name in ${PYTHON:-} python3 python3.14 python3.13 python3.12 python3.11 python3.10; do
  minor=$("$name" -I -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null) || continue
  if [ -f "$here/tool/requirements-$minor.txt" ]; then
    python=$(command -v "$name")
    break
  fi
done
if [ -z "$python" ]; then
  for archive in "$here"/python/*.tar.gz; do
    [ -f "$archive" ] || fail 'there is no Python 3.10 or newer here; make the bundle with `--interpreter`' 3
    mkdir -p "$version.python"
    tar -xzf "$archive" -C "$version.python"
    python=$(ls "$version.python"/python/bin/python3.1? | head -n 1)
    minor=${python##*python}
  done
fi

if [ ! -x "$version/bin/sgprov" ]; then
  mkdir -p "$to/versions"
  rm -rf "$version"
  # What is about to run is compared with the manifest, and the manifest with the seal.
  "$python" -I - "$here" "$version.uv" <<'PYTHON' || exit 4
import hashlib, json, os, platform, sys, zipfile

here, uv = sys.argv[1:]
with open(os.path.join(here, "MANIFEST.json"), "rb") as stream:
    head = stream.read()
with open(os.path.join(here, "SEAL")) as stream:
    sealed = stream.read().split()[2]
if hashlib.sha256(head).hexdigest() != sealed:
    sys.exit("error: the manifest is not the one that was sealed")
manifest = json.loads(head.decode())
if manifest["arch"] != platform.machine():
    sys.exit("error: the bundle is for %s, this machine is %s" % (manifest["arch"], platform.machine()))
for entry in manifest["files"]:
    if not entry["path"].startswith("tool/"):
        continue
    with open(os.path.join(here, *entry["path"].split("/")), "rb") as stream:
        if hashlib.sha256(stream.read()).hexdigest() != entry["sha256"]:
            sys.exit("error: `%s` was changed or damaged since the bundle was made" % entry["path"])
    name = entry["path"].split("/")[-1]
    if name.startswith("uv-") and name.endswith(".whl"):
        with zipfile.ZipFile(os.path.join(here, "tool", name)) as wheel:
            inside = next(one for one in wheel.namelist() if one.endswith(".data/scripts/uv"))
            with open(uv, "wb") as stream:
                stream.write(wheel.read(inside))
        os.chmod(uv, 0o755)
PYTHON
  uv="$version.uv"
  # uv says what went wrong; without that, nothing.
  "$uv" --no-config venv --quiet --offline --python "$python" "$version" || fail "no environment could be made in $version"
  "$uv" --no-config pip install --quiet --offline --no-index --find-links "$here/tool" --require-hashes \
    --python "$version/bin/python" --requirement "$here/tool/requirements-$minor.txt" || fail 'sgprov could not be installed'
  rm -f "$uv"
fi
mkdir -p "$to/bin"
ln -s "../versions/$digest/bin/sgprov" "$to/bin/.sgprov.$$"
mv -f "$to/bin/.sgprov.$$" "$to/bin/sgprov"
printf 'sgprov is at %s\n' "$to/bin/sgprov" >&2
[ -z "$tool_only" ] || exit 0
exec "$to/bin/sgprov" bootstrap --bundle "$here" "$@"
