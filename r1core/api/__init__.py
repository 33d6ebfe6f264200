"""The one module that a plugin author imports: the values that travel, the protocols, the hook marker.

Nothing here imports torch, transformers, numpy or any other part of r1core, so importing a plugin stays cheap.
The API version is the version of the distribution `r1core`; a plugin states the range it was written for
in its own `Requires-Dist` (`r1core>=0.1,<0.2`) and is refused, by name, outside of it.

The modules of this package are its rooms; their places may change, the names below do not.
"""

from r1core.api.data import Annotator, Augment, DatasetSource, DatasetTransform, QualityGate, Task
from r1core.api.decoding import (
    ByteAutomaton,
    ConstraintState,
    DecodeConstraint,
    DecodeRequest,
    Reason,
    TokenMask,
)
from r1core.api.host import Host
from r1core.api.learner import Learner
from r1core.api.model import LayerSpec, ModelSource, SlotFeatures
from r1core.api.once import build_once, cache_root
from r1core.api.plugin import Context, Domain, Plan, Plugin, Problem, hookimpl
from r1core.api.privacy import PrivacyPolicy, PrivateTask, PrivateTraining, RowGradients
from r1core.api.reporting import Plot, ReportSection, RunView, Series, Table
from r1core.api.training import Callback, Difficulty, Metric, Reward
from r1core.api.values import JSON, Example, Message, Span, SpanKind, edit
from r1core.errors import PluginError, R1Error, UserError

__all__ = [
    "JSON",
    "Annotator",
    "Augment",
    "ByteAutomaton",
    "Callback",
    "ConstraintState",
    "Context",
    "DatasetSource",
    "DatasetTransform",
    "DecodeConstraint",
    "DecodeRequest",
    "Difficulty",
    "Domain",
    "Example",
    "Host",
    "LayerSpec",
    "Learner",
    "Message",
    "Metric",
    "ModelSource",
    "Plan",
    "Plot",
    "Plugin",
    "PluginError",
    "PrivacyPolicy",
    "PrivateTask",
    "PrivateTraining",
    "Problem",
    "QualityGate",
    "R1Error",
    "Reason",
    "ReportSection",
    "Reward",
    "RowGradients",
    "RunView",
    "Series",
    "SlotFeatures",
    "Span",
    "SpanKind",
    "Table",
    "Task",
    "TokenMask",
    "UserError",
    "build_once",
    "cache_root",
    "edit",
    "hookimpl",
]
