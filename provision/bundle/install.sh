#!/bin/sh
# Install sgprov from this bundle, then bring this machine to what the bundle is for. Nothing is fetched.
# Needs tar, and Python 3.10 or newer unless the bundle holds one.
#
#   sh install.sh [--tool-only] [--to DIR] [OPTIONS of `sgprov bootstrap`]
set -eu
umask 022
export LC_ALL=C

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
    --to)
      [ $# -gt 1 ] && [ -n "$2" ] || fail '`--to` requires a directory' 2
      to=$2; shift 2 ;;
    *) break ;;
  esac
done
case $to in /*) ;; *) to=$PWD/$to ;; esac

# First of all, whatever is about to be read, unpacked or run is compared with the manifest, and that with the seal.
plain() { [ -f "$here/$1" ] && [ ! -L "$here/$1" ]; }
sum() { sha256sum <"$here/$1" | cut -c 1-64; }
changed="was changed or damaged since the bundle was made"
command -v sha256sum >/dev/null || fail '`sha256sum` is missing: install coreutils'
plain SEAL && plain MANIFEST.json || fail "$here is not an unpacked bundle" 4
sealed=$(sed -n 's,^sgprov-bundle-seal/1 [0-9a-f]\{64\} \([0-9a-f]\{64\}\)$,\1,p' "$here/SEAL")
[ "$(sum MANIFEST.json)" = "$sealed" ] || fail 'the manifest is not the one that was sealed' 4
arch=$(sed -n 's/^ "arch": "\([a-z0-9_]*\)",$/\1/p' "$here/MANIFEST.json")
[ -n "$arch" ] || fail 'the manifest does not say for which CPU it is' 4
[ "$arch" = "$(uname -m)" ] || fail "the bundle is for $arch, this machine is $(uname -m)" 3
listed=$(
  sed -n '/^ *"path": "\(.*\)",$/{s//\1/;h;n;s/^ *"sha256": "\([0-9a-f]*\)",$/\1/;G;s/\n/ /;p;}' "$here/MANIFEST.json" |
    sed -n -e '/^[0-9a-f]\{64\} install\.sh$/p' \
      -e '/^[0-9a-f]\{64\} tool\/[A-Za-z0-9][A-Za-z0-9._+!-]*$/p' \
      -e '/^[0-9a-f]\{64\} python\/[A-Za-z0-9][A-Za-z0-9._+!-]*$/p'
)
known=" "
while read -r digest name; do
  { plain "$name" && [ "$(sum "$name")" = "$digest" ]; } || fail "\`$name\` $changed" 4
  known="$known$name "
done <<LISTED
$listed
LISTED
case $known in *" install.sh "*) ;; *) fail 'the manifest does not list install.sh' 4 ;; esac
for path in "$here"/tool/* "$here"/tool/.[!.]* "$here"/python/* "$here"/python/.[!.]*; do
  name=${path#"$here"/}
  case $known in *" $name "*) continue ;; esac
  if [ -e "$path" ] || [ -L "$path" ]; then fail "\`$name\` is not in the bundle's manifest" 4; fi
done

# A version is called after sgprov's own wheel: the same code is installed once, whatever bundle brings it. Nothing but
# what is called so is ever removed.
digest=$(sed -n 's/^sgprov==.* --hash=sha256:\([0-9a-f]\{12\}\)[0-9a-f]\{52\}$/\1/p' "$here"/tool/requirements-3.*.txt | head -n 1)
case $digest in
  [0-9a-f][0-9a-f][0-9a-f][0-9a-f][0-9a-f][0-9a-f][0-9a-f][0-9a-f][0-9a-f][0-9a-f][0-9a-f][0-9a-f]) ;;
  *) fail 'the bundle does not say which sgprov it holds' 4 ;;
esac
version="$to/versions/$digest"
uv="$version.uv"

# Nobody else may exchange what is above it; where everybody may write but a sticky bit is set, as in /tmp, nobody can.
# Directories of users that a container has not got count as the system's own, and so does a group of the user alone.
[ ! -L "${to%/}" ] || fail "$to is a link"
near=$to
while [ ! -d "$near" ]; do near=$(dirname "$near"); done
rest=${to#"$near"}
near=$(cd "$near" && pwd -P)
to=${near%/}$rest
unmapped=
grep -q '^ *0 *0 *4294967295$' /proc/self/uid_map 2>/dev/null || unmapped=$(cat /proc/sys/kernel/overflowuid 2>/dev/null) || :
while :; do
  read -r mode _ owner group _ <<PLACE
$(ls -ldn "$near")
PLACE
  case " 0 $(id -u) $unmapped " in
    *" $owner "*) ;;
    *) [ "$near" = / ] || fail "$near belongs to somebody else, and decides what is in $to" ;;
  esac
  case $mode in
    d????????[tT]*) ;;
    d???????w*) fail "$near can be written by others, and decides what is in $to: chmod go-w $near" ;;
    d????w*)
      [ "$group $(id -gn)" = "$(id -g) $(id -un)" ] ||
        fail "$near can be written by a group, and decides what is in $to: chmod g-w $near"
      ;;
  esac
  [ "$near" != / ] || break
  near=$(dirname "$near")
done

# What runs from here is to be of this user's own making.
for place in "$to" "$to/versions" "$to/bin" "$version"; do
  mkdir -p "$place"
  [ -O "$place" ] && [ ! -L "$place" ] || fail "$place belongs to somebody else, or is a link"
  case $(ls -ld "$place") in
    d????w* | d???????w*) fail "$place can be written by others: chmod go-w $place" ;;
  esac
done

[ ! -d "$to/bin/sgprov" ] || fail "$to/bin/sgprov is a directory"

if [ ! -f "$version/complete" ]; then
  rm -rf "$version" "$version.python" "$uv"
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
      mkdir "$version.python"
      tar -xzof "$archive" -C "$version.python" || fail "Python could not be unpacked into $version.python"
      python=$(ls "$version.python"/python/bin/python3.1? | head -n 1)
      minor=${python##*python}
    done
  fi
  trap 'rm -f "$uv"' EXIT
  # No wheel unpacks to more than this, uv's own to 70 MB.
  "$python" -I - "$here/tool" "$uv" <<'PYTHON' || exit 4
import os, sys, zipfile

tool, uv = sys.argv[1:]
most = 500_000_000
for name in sorted(os.listdir(tool)):
    if not name.endswith(".whl"):
        continue
    try:
        with zipfile.ZipFile(os.path.join(tool, name)) as wheel:
            if sum(one.file_size for one in wheel.infolist()) > most:
                sys.exit("error: `%s` would unpack to more than %d bytes" % (name, most))
            inside = [one for one in wheel.infolist() if one.filename.endswith(".data/scripts/uv")]
            if name.startswith("uv-") and inside:
                with wheel.open(inside[0]) as packed, open(os.open(uv, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o700), "wb") as stream:
                    stream.write(packed.read(most))
    except (OSError, zipfile.BadZipFile) as error:
        sys.exit("error: `%s` cannot be read: %s" % (name, error))
PYTHON
  # uv says what went wrong; without that, nothing.
  "$uv" --no-config venv --quiet --offline --python "$python" "$version" || fail "no environment could be made in $version"
  "$uv" --no-config pip install --quiet --offline --no-index --find-links "$here/tool" --require-hashes --only-binary :all: \
    --python "$version/bin/python" --requirement "$here/tool/requirements-$minor.txt" || fail 'sgprov could not be installed'
  : >"$version/complete"
fi
rm -f "$to/bin/.sgprov.$$"
ln -s "../versions/$digest/bin/sgprov" "$to/bin/.sgprov.$$"
mv -f "$to/bin/.sgprov.$$" "$to/bin/sgprov"
printf 'sgprov is at %s\n' "$to/bin/sgprov" >&2
[ -z "$tool_only" ] || exit 0
exec "$to/bin/sgprov" bootstrap --bundle "$here" "$@"
