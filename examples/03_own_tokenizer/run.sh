#!/usr/bin/env bash
# JSON lines, a SentencePiece model trained on them, and a GPT-2 on the tokens.
# Usage: run.sh LONGSPAN [FOLDER]
set -euo pipefail
longspan=$(realpath "${1:?usage: run.sh LONGSPAN [FOLDER]}")
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
folder=${2:-$(mktemp -d)}
mkdir -p "$folder" && cd "$folder" && rm -rf runs

# One JSON object a line; the text is in the field "body". Any tool writes such files; here sed and awk do.
for file in "$here"/../../*/*.md "$here"/../../runtime/*/*.cc; do
  sed 's/\\/\\\\/g; s/"/\\"/g; s/\t/\\t/g' "$file" | awk -v name="$(basename "$file")" '
    BEGIN { printf "{\"name\": \"%s\", \"body\": \"", name }
    { printf "%s\\n", $0 }
    END { print "\"}" }'
done >texts.jsonl

"$longspan" data build texts.jsonl --field body --train-vocab 600 --out texts.h5
"$longspan" data inspect texts.h5 --json >inspect.json
grep -q sentencepiece inspect.json

"$longspan" train "$here/gpt2.toml"
# The run's folder carries the tokenizer along.
"$longspan" generate runs/gpt2 --prompt "# kernels" --tokens 40
