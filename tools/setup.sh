#!/bin/sh
# tools/setup.sh FOLDER: a virtual environment with moshi_mlx in it (editable, with what tests need). Uses uv where there is one.
# Whatever the system lacks is named with the command that installs it. PYTHON=… chooses the interpreter.
set -eu
venv=$1

fail() {
    echo "set-up: $1" >&2
    exit 1
}

find_python() {
    for name in ${PYTHON:-python3 python3.14 python3.13 python3.12 python3.11 python}; do
        if "$name" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then
            echo "$name"
            return
        fi
    done
    return 1
}

case $(uname -s) in
    Darwin) get_python="brew install python@3.13" get_venv=$get_python ;;
    *) get_python="sudo apt-get install python3 python3-venv" get_venv="sudo apt-get install python3-venv" ;;
esac

if python=$(find_python); then
    if [ "$(uname -s)" = Darwin ] && [ "$("$python" -c 'import platform; print(platform.machine())')" != arm64 ]; then
        fail "$python is not built for Apple silicon; install one that is: $get_python"
    fi
    # a sentence of ours, instead of a resolver's ten
    old_system="import platform, sys; kind, version = platform.libc_ver(); sys.exit(kind == 'glibc' and tuple(map(int, version.split('.')[:2])) < (2, 35))"
    if [ "$(uname -s)" = Linux ] && ! "$python" -c "$old_system"; then
        fail "this system is too old for MLX, which needs glibc 2.35: Debian 12, Ubuntu 22.04, Fedora 36 or newer"
    fi
elif uv --version >/dev/null 2>&1; then
    python=3.13 # uv fetches it
else
    fail "no Python 3.11 or later here; install one: $get_python"
fi

if uv --version >/dev/null 2>&1; then
    uv venv --quiet --allow-existing --seed --python "$python" "$venv"
    uv pip install --quiet --python "$venv/bin/python" --editable '.[dev,echo]'
else
    "$python" -c 'import ensurepip, venv' 2>/dev/null || fail "$python has no venv module; install it: $get_venv"
    "$python" -m venv "$venv"
    "$venv/bin/python" -m pip install --quiet --disable-pip-version-check --editable '.[dev,echo]'
fi

if [ "$(uname -s)" = Linux ] && ! "$venv/bin/python" -c 'import sounddevice' 2>/dev/null; then
    echo "set-up: note: the voice chat needs PortAudio, which is not here; install it: sudo apt-get install libportaudio2" >&2
fi
