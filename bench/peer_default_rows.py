#!/usr/bin/env python3
"""peer_default_rows.py PEER_SCRIPT ARGUMENT...: the peer on our default rows instead of upstream's: our own system message, no
spaces between motion tokens, and nothing behind the answer. The rest is the peer's script's, with its arguments."""

import importlib.util
import os
import re
import sys

SOURCE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "src", "data", "motion_vocab.c")


def system_message():
    """The text as src/data/motion_vocab.c has it."""
    with open(SOURCE, encoding="utf-8") as f:
        literals = re.search(r"default_system_prompt\[\] =(.*?);", f.read(), re.S)[1]
    return "".join(re.findall(r'"([^"]*)"', literals))


def main():
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    spec = importlib.util.spec_from_file_location("peer", sys.argv.pop(1))
    peer = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(peer)
    peer.SYSTEM = system_message()

    def row_text(row):
        pid = f"<PID_{row['participant_id']}>" if "participant_id" in row else ""
        motion = "".join(f"<motion_{t}>" for t in row["motion_tokens"].split())
        return (f"<|im_start|>system\n{peer.SYSTEM}<|im_end|>\n<|im_start|>user\n<T2M>{pid}\n\n{row['text_query']}\n<|im_end|>\n"
                f"<|im_start|>assistant\n<MOT_BEGIN>{motion}<MOT_END>")

    peer.row_text = row_text
    peer.main()


if __name__ == "__main__":
    main()
