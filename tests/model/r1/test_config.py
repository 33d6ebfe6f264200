"""What an R1 cannot be is refused when its configuration is made, in one line that says what would fit."""

from __future__ import annotations

import pytest
from transformers import AutoConfig

from r1core.model.r1 import R1Config
from r1core.testing.tiny_r1 import config


def test_defaults_are_those_of_the_design() -> None:
    made = R1Config()
    assert (made.num_experts, made.expert_groups, made.experts_per_group, made.num_experts_per_tok) == (128, 8, 16, 2)
    assert (made.rope_theta, made.router_temperature, made.global_every) == (50_000, 0.5, 256)
    assert made.max_position_embeddings == 204_800


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"num_experts": 10, "expert_groups": 4}, "10 do not divide into expert_groups = 4"),
        ({"num_experts_per_tok": 17}, "num_experts_per_tok = 17 of 16 experts: give 1 to 16"),
        ({"num_experts_per_tok": 5, "groups_per_token": 1}, "raise groups_per_token"),
        ({"groups_per_token": 5}, "groups_per_token = 5 of 4 groups"),
        ({"sliding_window": 0}, "sliding_window = 0: a token sees at least itself"),
        ({"global_every": 0}, "global_every = 0"),
        ({"max_position_embeddings": 204_801}, "R1 goes to 204800"),
        ({"router_temperature": 0.0}, "router_temperature = 0.0: it has to be above 0"),
        ({"num_attention_heads": 3}, "num_attention_heads = 3 is no multiple of num_key_value_heads = 2"),
        ({"head_dim": 7}, "head_dim = 7"),
        ({"head_dim": -2}, "head_dim = -2"),
        ({"rms_norm_eps": -1.0}, "rms_norm_eps = -1.0: give a number above 0"),
        ({"initializer_range": 0.0}, "initializer_range = 0.0"),
        ({"router_aux_loss_coef": float("nan")}, "router_aux_loss_coef = nan: give 0 or more"),
        ({"router_bias_rate": -1.0}, "router_bias_rate = -1.0"),
        ({"attention_dropout": 1.0}, "attention_dropout = 1.0: give a share"),
        ({"hidden_act": "foo"}, "hidden_act = 'foo': R1's experts compute silu"),
        ({"rope_parameters": {"rope_theta": -1.0}}, "rope_theta = -1.0: give a base above 1"),
        ({"rope_parameters": {"rope_theta": float("nan")}}, "rope_theta = nan"),
        ({"pad_token_id": 97}, "pad_token_id = 97 of a vocabulary of 97"),
        ({"sliding_window": 1.5}, "sliding_window"),
        ({"sliding_window": "8"}, "sliding_window"),
        ({"num_experts_per_tok": 1.5}, "num_experts_per_tok"),
        ({"norm_topk_prob": "yes"}, "norm_topk_prob"),
    ],
)
def test_what_does_not_fit_is_refused(changed: dict[str, object], said: str) -> None:
    with pytest.raises(Exception, match=said):
        config(**changed)


def test_it_is_written_and_read_by_the_auto_class(tmp_path) -> None:
    made = config(router_temperature=0.7, rope_parameters={"rope_theta": 1234.0})
    made.save_pretrained(tmp_path)
    read = AutoConfig.from_pretrained(tmp_path)
    assert isinstance(read, R1Config)
    assert (read.router_temperature, read.rope_theta, read.num_experts) == (0.7, 1234.0, 16)
