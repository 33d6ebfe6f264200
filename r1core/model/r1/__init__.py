"""R1, the platform's own architecture. Importing this makes it known to transformers' Auto classes."""

from transformers import AutoConfig, AutoModel, AutoModelForCausalLM

from r1core.model.r1.config import R1Config
from r1core.model.r1.model import R1ForCausalLM, R1Model

__all__ = ["R1Config", "R1ForCausalLM", "R1Model"]


def known() -> None:
    """Tell transformers of R1; telling it twice does no harm."""
    AutoConfig.register(R1Config.model_type, R1Config, exist_ok=True)
    AutoModel.register(R1Config, R1Model, exist_ok=True)
    AutoModelForCausalLM.register(R1Config, R1ForCausalLM, exist_ok=True)


known()
