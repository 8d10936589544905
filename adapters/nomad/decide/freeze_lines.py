"""The shell lines that freeze and thaw inside a task. Texts only; nothing is run here.

The freeze line leaves a dead man's switch behind, in the task itself: it thaws when the time is up, whatever has
become of everybody else. All lines of one freeze agree by two files in the allocation's directory, named after the
freeze: `F` (it is under way) and `F.stop` (thaw is under way). A freeze that ends after either said stop thaws
itself, so it does not matter how late it ends. Only /bin/sh is started, never a program by its name: a missing
program would wedge the task for good (nomad-verified.md A3). The task's own texts arrive as arguments, so they need
no quoting.
"""

from __future__ import annotations

SHELL = "/bin/sh"
LATE = 75
"""The freeze ended when its time was over; it was thawed at once."""
LOST = "snapbridge-freeze-lost"
"""What a thaw writes when something else had thawed before it: the switch, or an earlier freeze that ended late."""

# A redirection that fails ends a whole shell, so each one has a shell of its own: a full disk must not stop a thaw.
_FILES = """\
p="${NOMAD_ALLOC_DIR:-/tmp}/.snapbridge-freeze-"; f="$p$1"
tell() { for other in "$p"*; do [ "$other" = "$f" ] || [ ! -e "$other" ] || (echo lost > "$other"); done; }
stop() { [ ! -e "$f" ] || (: > "$f.stop"); }"""

_FREEZE = f"""\
{_FILES}
(: > "$f") || exit 74
(
  sleep "$2"
  while [ -e "$f" ]; do
    stop; tell
    if {SHELL} -c "$4" && rm -f "$f" "$f.stop"; then break; fi
    sleep 2
  done
) </dev/null >/dev/null 2>&1 &
{SHELL} -c "$3"
code=$?
if [ -e "$f.stop" ] || [ ! -e "$f" ]; then
  tell 2>/dev/null
  until {SHELL} -c "$4"; do sleep 2; done
  exit {LATE}
fi
exit $code
"""

_THAW = f"""\
{_FILES}
lost={LOST}
[ ! -e "$f" ] || [ -s "$f" ] || lost=
{{ stop; tell; }} 2>/dev/null
{SHELL} -c "$2"
code=$?
[ $code -ne 0 ] || rm -f "$f" "$f.stop"
[ -z "$lost" ] || echo "$lost"
exit $code
"""


def freeze(freeze_id: str, freeze_text: str, thaw_text: str, seconds: float) -> list[str]:
    """Freeze, and thaw after so many seconds unless somebody else does before."""
    return [SHELL, "-c", _FREEZE, "snapbridge-freeze", freeze_id, f"{max(1, round(seconds))}", freeze_text, thaw_text]


def thaw(freeze_id: str, thaw_text: str) -> list[str]:
    """Thaw, and disarm that freeze's switch if it worked."""
    return [SHELL, "-c", _THAW, "snapbridge-thaw", freeze_id, thaw_text]
