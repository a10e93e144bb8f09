"""What a Redis user needs: `perdure.journal.redis_rights`."""

from __future__ import annotations

import re
from pathlib import Path

from perdure.journal.redis_line import Refusal
from perdure.journal.redis_rights import SCRIPTED, SENT, acl_line, missing_rights, needed, probes

JOURNAL = Path(__file__).resolve().parents[2] / "journal"
CALLED = re.compile(r"redis\.call\(\s*'(\w+)'(?:,\s*'(USAGE)')?")
# The first word of a command tuple: b"ZADD" or "ZADD" after an opening parenthesis or bracket.
WORDS = re.compile(r"[(\[]\s*b?\"([A-Z]{3,})\"(?:,\s*b?\"([A-Z]{3,})\")?")
CONTAINERS = ("CLIENT", "SCRIPT", "CONFIG", "CLUSTER")
# Sent before there is a user, or to Sentinels; and errors and options, which are in capitals, too.
ELSEWHERE = {"AUTH", "SENTINEL", "LOADING", "READONLY", "MOVED", "ASK", "COUNT", "SCRIPT|ASKING"}


def test_the_scripts_call_what_is_granted() -> None:
    """A script that learns a new command is noticed here, before a user without it does."""
    called = set()
    for path in (JOURNAL / "scripts").glob("*.lua"):
        for name, usage in CALLED.findall(path.read_text()):
            called.add(f"{name}|{usage}".rstrip("|").lower())
    assert called <= set(SCRIPTED)
    # What the scripts have no more is taken out; HKEYS is sent.
    assert set(SCRIPTED) - called <= {"hkeys"}


def test_processes_send_what_is_granted() -> None:
    """Every command that stands in the code of the journal is granted, and nothing is that does not."""
    sent = set()
    for path in JOURNAL.glob("*.py"):
        if path.name == "redis_rights.py":
            continue
        for name, second in WORDS.findall(path.read_text()):
            sent.add(f"{name}|{second}".lower() if name in CONTAINERS else name.lower())
    sent -= {name.lower() for name in ELSEWHERE}
    assert sent <= set(SENT)
    # redis-py's own, at each connect; words that are put together; what the doctor alone sends.
    assert set(SENT) - sent <= {"client|setinfo", "select", "subscribe", "unsubscribe", "ping", "wait", "waitaof",
                                "multi", "discard"}  # fmt: skip


def test_the_line_grants_each_command_once() -> None:
    """Older servers refuse a line that names commands that they do not know."""
    line = acl_line("ns")
    assert line.startswith("ACL SETUSER perdure on '>secret' '~ns:*' '&ns:*' +")
    assert "+waitaof" in line
    assert "+waitaof" not in acl_line("ns", waitaof=False)
    words = line.split()
    assert len(words) == len(set(words))


def test_the_documentation_has_the_line() -> None:
    """People copy it from there."""
    page = (JOURNAL.parent / "docs" / "operations.md").read_text()
    assert f"\nredis-cli {acl_line('perdure')}\n" in page


def test_every_right_has_its_probe() -> None:
    """What is granted is looked for, but for what the look itself needs."""
    names = {right.name for right in probes("ns", waitaof=True, cluster=True)}
    assert set(needed()) - names == {"multi", "discard", "client|setinfo", "asking"}
    assert "cluster|slots" not in {right.name for right in probes("ns", waitaof=True, cluster=False)}


def test_refusals_become_the_words_that_mend_them() -> None:
    """Each once; what is refused for other reasons is no missing right."""
    asked = probes("ns", waitaof=True, cluster=False)[:4]
    forbidden = Refusal("no permission", "this user has no permissions to run the 'x' command")
    keys = Refusal("no permission", "No permissions to access a key")
    moved = Refusal("elsewhere", "Moved 1 h:2")
    assert missing_rights(asked, [b"QUEUED", forbidden, keys, moved]) == [f"+{asked[1].name}", "keys"]
