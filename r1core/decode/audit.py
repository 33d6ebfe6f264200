"""The audit record of an answer: what held, what intervened, how it ended, and the digest of what was shown.

It holds no text of prompt or answer, so that it can be kept where these may not.
"""

from __future__ import annotations

import hashlib
import time

from r1core.api import JSON
from r1core.decode.hold import Hold, rechecks
from r1core.decode.session import Answer


def audit_record(answer: Answer, shown: str, held: Hold | None) -> dict[str, JSON]:
    """The record as JSON.

    `text_sha256` is of what was shown, the answer's given start included; of the empty text where it was withheld.
    `constraints` are by name and fingerprint; `rules` are those that apply, as far as constraints tell them.
    """
    done = answer.completion
    constraints = held.constraints.constraints if held is not None else []
    named = [reason.rule for one in done.interventions for reason in one.reasons]
    return {
        "time": round(time.time(), 3),
        "finish": done.finish,
        "failure": done.failure,
        "tokens": len(done.tokens),
        "text_sha256": hashlib.sha256(shown.encode()).hexdigest(),
        "constraints": [{"name": c.name, "fingerprint": c.fingerprint()} for c in constraints],
        "rules": list(held.constraints.rules(held.example)) if held is not None else [],
        "rules_intervened": list(dict.fromkeys(named)),
        "interventions": [
            {"position": one.position, "rules": list(dict.fromkeys(r.rule for r in one.reasons))}
            for one in done.interventions
        ],
        "recheck": {
            "by": [c.name for c in constraints if rechecks(c)],
            "found": [{"constraint": name, "rule": reason.rule} for name, reason in answer.recheck],
        },
    }
