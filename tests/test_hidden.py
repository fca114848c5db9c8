"""What a leaf is taken for, by the names that people's models have, and as what matrix."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen, nnx
from jax.sharding import AxisType, NamedSharding, PartitionSpec

import gradkit as gk
from gradkit._core.matrix import layout
from gradkit._core.routing import hidden
from gradkit.testing import check

H, A = True, False  # a hidden matrix; left to Adam
TREES = {  # path, shape, whether hidden; a pair of numbers also says as which matrix
    "flax.linen Transformer": [
        ("encoder/MultiHeadDotProductAttention_0/query/kernel", (32, 4, 8), (32, 32)),
        ("encoder/MultiHeadDotProductAttention_0/key/kernel", (48, 4, 8), (48, 32)),
        ("encoder/MultiHeadDotProductAttention_0/value/kernel", (32, 4, 6), (32, 24)),
        ("encoder/MultiHeadDotProductAttention_0/out/kernel", (4, 8, 32), (32, 32)),
        ("encoder/MultiHeadDotProductAttention_0/query/bias", (4, 8), A),
        ("encoder/MultiHeadDotProductAttention_0/out/bias", (32,), A),
        ("Embed_0/embedding", (100, 32), A),
        ("LayerNorm_0/scale", (32,), A),
        ("Dense_0/kernel", (32, 64), (32, 64)),
        ("Dense_0/bias", (64,), A),
        ("Conv_0/kernel", (3, 3, 32, 64), (288, 64)),
        ("Dense_2/kernel", (64, 10), H),  # the last layer of linen: no name tells it
        ("LSTMCell_0/hi/kernel", (16, 16), H),
    ],
    "flax.nnx": [
        ("blocks/0/attention/query/kernel", (32, 4, 8), (32, 32)),
        ("blocks/0/attention/query/bias", (4, 8), A),
        ("blocks/0/attention/key_ln/scale", (8,), A),
        ("blocks/0/attention/out/kernel", (4, 8, 32), (32, 32)),
        ("blocks/0/mlp/up/kernel", (32, 64), H),
        ("blocks/0/mlp/up/lora_a", (32, 4), H),
        ("blocks/0/mlp/up/lora_b", (4, 64), H),
        ("embed/embedding", (100, 32), A),
        ("readout/kernel", (32, 10), A),
        ("blocks/0/mlp/linear_out/kernel", (64, 32), H),
    ],
    "flax examples wmt, lm1b": [
        ("shared_embedding/embedding", (1000, 64), A),
        ("encoder/posembed_input/pos_embedding", (1, 256, 64), A),
        ("encoder/encoderblock_0/SelfAttention_0/query/kernel", (64, 4, 16), (64, 64)),
        ("encoder/encoderblock_0/MlpBlock_0/Dense_1/kernel", (256, 64), H),
        ("decoder/posembed_output/pos_embedding", (1, 256, 64), A),
        ("decoder/encoderdecoderblock_0/MlpBlock_0/Dense_0/kernel", (64, 256), H),
        ("decoder/logitdense/kernel", (64, 1000), A),
        ("decoder/LogitDense/kernel", (64, 1000), A),
    ],
    "vision_transformer, big_vision": [
        ("embedding/kernel", (16, 16, 3, 64), H),  # a convolution
        ("cls", (1, 1, 64), A),
        ("Transformer/posembed_input/pos_embedding", (1, 197, 64), A),
        ("Transformer/encoderblock_3/MlpBlock_3/Dense_0/kernel", (64, 256), H),
        (
            "Transformer/encoderblock_3/MultiHeadDotProductAttention_1/key/kernel",
            (64, 4, 16),
            (64, 64),
        ),
        (
            "Transformer/encoderblock_3/MultiHeadDotProductAttention_1/key/bias",
            (4, 16),
            A,
        ),
        ("pre_logits/kernel", (64, 64), H),
        ("head/kernel", (64, 1000), A),
        ("head/bias", (1000,), A),
        ("MAPHead_0/probe", (1, 1, 64), A),
        ("MAPHead_0/MlpBlock_0/Dense_0/kernel", (64, 256), H),
        (
            "MAPHead_0/MultiHeadDotProductAttention_0/value/kernel",
            (64, 4, 16),
            (64, 64),
        ),
        ("pos_embedding", (1, 196, 64), A),
    ],
    "nanodo": [
        ("embed/embedding", (100, 64), A),
        ("pos_embed/embedding", (32, 64), A),
        ("blocks_0/CausalAttn_0/query/kernel", (64, 4, 16), (64, 64)),
        ("blocks_0/CausalAttn_0/attn_out_proj/kernel", (4, 16, 64), (64, 64)),
        ("blocks_0/Mlp_0/Dense_0/kernel", (64, 256), H),
        ("out_ln/scale", (64,), A),
    ],
    "Hugging Face BERT": [
        ("bert/embeddings/word_embeddings/embedding", (100, 64), A),
        ("bert/embeddings/position_embeddings/embedding", (32, 64), A),
        ("bert/embeddings/token_type_embeddings/embedding", (2, 64), A),
        ("bert/embeddings/LayerNorm/scale", (64,), A),
        ("bert/encoder/layer/0/attention/self/query/kernel", (64, 64), H),
        ("bert/encoder/layer/0/attention/output/dense/kernel", (64, 64), H),
        ("bert/encoder/layer/0/intermediate/dense/kernel", (64, 256), H),
        ("bert/encoder/layer/0/output/dense/kernel", (256, 64), H),
        ("encoder/layers_0/output/dense/kernel", (256, 64), H),
        ("bert/pooler/dense/kernel", (64, 64), H),
        ("cls/predictions/decoder/kernel", (64, 100), A),
        ("cls/predictions/bias", (100,), A),
        ("classifier/kernel", (64, 3), A),
        ("qa_outputs/kernel", (64, 2), A),
        ("classifier/out_proj/kernel", (64, 3), A),
        ("lm_head/decoder/kernel", (64, 100), A),
    ],
    "Hugging Face GPT-2 and Llama": [
        ("transformer/wte/embedding", (100, 64), A),
        ("transformer/wpe/embedding", (32, 64), A),
        ("transformer/h/0/attn/c_attn/kernel", (192, 64), H),
        ("transformer/h/0/attn/c_proj/kernel", (64, 64), H),
        ("transformer/h/0/mlp/c_fc/kernel", (256, 64), H),
        ("transformer/ln_f/scale", (64,), A),
        ("lm_head/kernel", (64, 100), A),
        ("model/embed_tokens/embedding", (100, 64), A),
        ("model/layers/0/self_attn/q_proj/kernel", (64, 64), H),
        ("model/layers/0/mlp/gate_proj/kernel", (64, 256), H),
        ("model/layers/0/input_layernorm/weight", (64,), A),
        ("score/kernel", (64, 2), A),
    ],
    "Hugging Face T5 and BART": [
        ("shared/embedding", (100, 64), A),
        (
            "encoder/block/0/layer/0/SelfAttention/relative_attention_bias/embedding",
            (32, 8),
            A,
        ),
        ("encoder/block/0/layer/0/SelfAttention/q/kernel", (64, 64), H),
        ("encoder/block/0/layer/0/SelfAttention/o/kernel", (64, 64), H),
        ("encoder/block/0/layer/1/DenseReluDense/wi/kernel", (64, 256), H),
        ("lm_head/kernel", (64, 100), A),
        ("final_logits_bias", (1, 100), A),
        ("model/encoder/embed_positions/embedding", (34, 64), A),
        ("model/decoder/layers/0/encoder_attn/out_proj/kernel", (64, 64), H),
        ("classification_head/dense/kernel", (64, 64), A),
    ],
    "Hugging Face ViT, CLIP, Swin, wav2vec 2": [
        ("vit/embeddings/patch_embeddings/projection/kernel", (16, 16, 3, 64), H),
        ("vit/embeddings/cls_token", (1, 1, 64), A),
        ("vit/embeddings/mask_token", (1, 1, 64), A),
        ("vit/embeddings/position_embeddings", (1, 197, 64), A),
        ("vit/encoder/layer/0/output/dense/kernel", (256, 64), H),
        ("vision_model/embeddings/patch_embedding/kernel", (16, 16, 3, 64), H),
        ("vision_model/embeddings/class_embedding", (64,), A),
        ("text_model/embeddings/token_embedding/embedding", (100, 64), A),
        ("logit_scale", (), A),
        ("text_projection/kernel", (64, 32), H),
        ("attn/relative_position_bias_table", (169, 4), A),
        ("encoder/pos_conv_embed/conv/weight_v", (128, 4, 64), H),
        ("quantizer/codevectors", (1, 640, 128), A),
    ],
    "t5x, MaxText": [
        ("token_embedder/embedding", (100, 64), A),
        ("decoder/relpos_bias/rel_embedding", (8, 32), A),
        ("decoder/layers_0/self_attention/query/kernel", (64, 4, 16), (64, 64)),
        ("decoder/layers_0/self_attention/key/kernel", (64, 2, 16), (64, 32)),
        ("decoder/layers_0/self_attention/qkv_proj/kernel", (64, 3, 4, 16), (64, 192)),
        ("decoder/layers_0/self_attention/out/kernel", (4, 16, 64), (64, 64)),
        ("decoder/layers_0/mlp/wi_0/kernel", (64, 256), H),
        ("decoder/layers_0/MoeBlock_0/gate/kernel", (64, 8), H),
        ("decoder/decoder_norm/scale", (64,), A),
        ("decoder/logits_dense/kernel", (64, 100), A),
        ("decoder/position_embedder/embedding", (32, 64), A),
    ],
    "gemma, tunix, PaliGemma": [
        ("embedder/input_embedding", (100, 64), A),
        ("embedder/mm_input_projection/w", (32, 64), H),
        ("layer_0/attn/q_einsum/w", (4, 64, 16), (64, 64)),
        ("layer_0/attn/kv_einsum/w", (2, 1, 64, 16), (64, 32)),
        ("layer_0/attn/qkv_einsum/w", (3, 4, 64, 16), (64, 192)),
        ("layer_0/attn/attn_vec_einsum/w", (4, 16, 64), (64, 64)),
        ("layers/0/attn/q_proj/w", (64, 4, 16), (64, 64)),
        ("layers/0/attn/o_proj/w", (4, 16, 64), (64, 64)),
        ("layers/0/mlp/gate_proj/kernel", (64, 256), H),
        ("layer_0/mlp/linear", (256, 64), H),
        ("final_norm/scale", (64,), A),
    ],
    "Equinox, levanter, torch": [
        ("mlp/layers/0/weight", (64, 32), H),
        ("conv/bias", (8, 1, 1), A),
        ("norm/weight", (8, 4, 4), A),
        ("tok_emb/weight", (100, 64), A),
        ("attn/query_proj/weight", (64, 64), H),
        ("transformer/self_attn/q_proj/weight", (2, 2, 16, 64), (64, 64)),  # [out, in]
        ("encoder.layer.0.attention.output.dense.weight", (64, 64), H),
        ("tok_embeddings.weight", (100, 64), A),
        ("W_Q", (4, 64, 16), (64, 64)),
    ],
    "Haiku": [
        ("transformer/~/embed/embeddings", (100, 64), A),
        ("transformer/~/attn/query/w", (64, 64), H),
        ("mlp/~/linear_0/b", (2, 64), A),
        ("mlp/~/linear_0/w", (32, 64), H),
    ],
    "DINOv2, MAE, ConvNeXt, DiT, Mamba": [
        ("patch_embed/proj/kernel", (14, 14, 3, 64), H),
        ("pos_embed", (1, 257, 64), A),
        ("patch_pos_embed", (256, 64), A),
        ("patch_embed/kernel", (588, 64), H),  # a product, of flat patches
        ("blocks/0/attention/merge_head/kernel", (64, 64), H),
        ("rel_pos_h", (27, 16), A),
        ("register_tokens", (1, 4, 64), A),
        ("blocks/0/ls1/gamma", (64,), A),
        ("blocks/0/ls1/gamma", (2, 64), A),  # of scanned layers
        ("decoder_embed/kernel", (64, 32), A),
        ("decoder_pred/kernel", (32, 768), A),
        ("mlp_head/kernel", (64, 10), A),
        ("stages/0/block_0/dwconv/kernel", (7, 7, 1, 64), A),
        ("t_embedder/mlp/0/kernel", (64, 64), H),
        ("layers/0/mixer/A_log", (128, 16), A),
        ("layers/0/mixer/dt_proj/kernel", (8, 128), H),
        ("temperature", (8, 1), A),
    ],
    "attention's inputs, by words": [
        ("attn/query_key_value/kernel", (64, 3, 4, 16), (64, 192)),
        ("attn/wq_b", (32, 4, 16), (32, 64)),
        ("attn/wkv_b", (16, 4, 32), (16, 128)),
        ("attn/wkv_b/kernel", (16, 32, 4), (16, 128)),
        ("self_attn/q_b_proj/kernel", (32, 4, 16), (32, 64)),
        ("self_attn/kv_b_proj/kernel", (16, 4, 32), (16, 128)),
        ("mla/q_up/kernel", (32, 4, 16), (32, 64)),
        ("attn/c_q/kernel", (64, 4, 16), (64, 64)),
        ("attn/queries/kernel", (64, 4, 16), (64, 64)),
        ("attn/keys/kernel", (64, 4, 16), (64, 64)),
        ("attn/values/w", (64, 4, 16), (64, 64)),
        ("attn/to_queries", (64, 4, 16), (64, 64)),
        ("attn/query_projection/kernel", (64, 4, 16), (64, 64)),
        ("attn/query_dense/kernel", (64, 4, 16), (64, 64)),
        ("attn/key_layer/kernel", (64, 4, 16), (64, 64)),
        ("attn/q/Dense_0/kernel", (64, 4, 16), (64, 64)),
        ("attn/wq1/kernel", (64, 4, 16), (64, 64)),
        ("attn/gate/kernel", (64, 4, 16), (64, 64)),
        ("attn/g_proj/kernel", (64, 4, 16), (64, 64)),
        ("attn/query_kernel", (64, 4, 16), (64, 64)),
        ("attn/kernel_q", (64, 4, 16), (64, 64)),
        ("attn/in_proj/kernel", (64, 3, 4, 16), (64, 192)),
        ("attn/qkv/kernel", (64, 3, 64), (64, 192)),
        ("attn/kv/kernel", (64, 2, 64), (64, 128)),
        ("attn/qkv/kernel", (64, 4, 48), (64, 192)),
        ("attn/qkv/kernel", (64, 12, 16), (64, 192)),
        ("attn/qkv/kernel/value", (64, 12, 16), (64, 192)),
        ("attn/out/kernel/value", (4, 16, 64), (64, 64)),
        ("attn/o_proj/kernel", (4, 16, 64), (64, 64)),
        ("attn/dense/kernel", (4, 16, 64), (64, 64)),
        ("key_conv/kernel", (3, 64, 64), (192, 64)),
        ("mlp/gate/kernel", (3, 64, 64), (192, 64)),
    ],
    "AlphaFold": [
        ("evoformer/attention/query_w", (64, 4, 16), (64, 64)),
        ("evoformer/attention/key_w", (64, 4, 16), (64, 64)),
        ("evoformer/attention/gating_w", (64, 4, 16), (64, 64)),
        ("evoformer/attention/q_w", (64, 4, 16), (64, 64)),
        ("evoformer/attention/output_w", (4, 16, 64), (64, 64)),
        ("evoformer/attention/query_b", (4, 16), A),
        ("evoformer/attention/gating_b", (4, 16), A),
    ],
    "adapters": [
        ("attn/q_proj/lora_a", (64, 8), (64, 8)),
        ("attn/q_proj/lora_b", (8, 4, 16), (8, 64)),
        ("attn/q_proj/lora_b", (4, 8, 16), (4, 128)),
        ("attn/query/kernel_lora_b", (8, 4, 16), (8, 64)),
        ("attn/q_proj/lora_b/kernel", (8, 4, 16), (8, 64)),
        ("q/lora/A", (64, 8), (64, 8)),
        ("q/lora/B", (8, 64), (8, 64)),
        ("mlp/up/lora/b", (8, 64), (8, 64)),
        ("mlp/LoRA_0/b", (8, 64), (8, 64)),
        ("exploration/b", (8, 64), A),
        ("attn/b", (4, 16), A),
    ],
    "biases of several axes": [
        ("blocks/0/attn/b_Q", (4, 16), A),
        ("attn/bq", (4, 16), A),
        ("moe/b_in", (8, 16), A),
        ("moe/b_out", (8, 16), A),
        ("moe/b_gate", (8, 16), A),
        ("moe/b1", (8, 16), A),
        ("mixer/b_proj", (64, 16), H),
    ],
    "torch's convolutions": [
        ("layer1.0.conv1.weight", (64, 32, 3, 3), (64, 288)),
        ("layer2.0.downsample.0.weight", (64, 64, 1, 1), (64, 64)),
        ("patch_embed.proj.weight", (64, 3, 16, 16), (64, 768)),
        ("features.0.weight", (64, 32, 5), (64, 160)),
        ("layers/mlp/weight", (12, 64, 64), (768, 64)),  # stacked
        ("stages.0.dwconv.weight", (64, 1, 7, 7), A),
        ("mixer.conv1d.weight", (128, 1, 4), A),
        ("conv1d/kernel", (4, 1, 128), A),
        ("stem/w", (3, 3, 3, 32), (27, 32)),
        ("layers.0.weight", (64, 32, 3, 3), (64, 288)),
        ("layers/attn/q_proj/kernel", (12, 64, 64), (768, 64)),  # stacked
    ],
    "tables of places": [
        (f"attn/{name}/{leaf}", (32, 8), A)
        for name in (
            "relative_attention_bias",
            "relative_position_bias",
            "relpos_bias",
            "rel_pos",
            "relpos_table",
            "positional_encoding",
            "position_encoding",
            "query_pos",
            "posenc",
        )
        for leaf in ("weight", "value", "kernel")
    ]
    + [
        ("pos_encoder/pe", (32, 64), A),
        ("encoder/pe", (32, 64), A),
        ("attn/linear_pos/kernel", (64, 64), H),
        ("shared/weight", (100, 64), A),
        ("model.shared.weight", (100, 64), A),
        ("W_E", (100, 64), A),
        ("W_U", (64, 100), A),
        ("W_pos", (32, 64), A),
        ("blocks/0/mlp/W_E", (64, 64), H),
    ],
    "layers that embed": [
        ("time_embed.0.weight", (64, 256), H),
        ("time_embed.2.weight", (256, 256), H),
        ("input_blocks.1.0.emb_layers.1.weight", (256, 64), H),
        ("embed/0", (100, 64), A),
        ("embeddings/0/weight", (100, 64), A),
        ("embed/0/embedding", (100, 64), A),
    ],
    "outputs of blocks": [
        ("ffn/output/kernel", (256, 64), H),
        ("encoder_0/mlp/output/kernel", (256, 64), H),
        ("FeedForward_0/output/kernel", (256, 64), H),
        ("transformer/h0_mlp/output/w", (256, 64), H),
        ("down_blocks_0/attentions_0/proj_out/kernel", (64, 64), H),
        ("attentions_0/proj_out/kernel", (64, 64), H),
        ("SpatialTransformer_0/proj_out/kernel", (64, 64), H),
        ("blocks/0/mlp/fc/kernel", (64, 64), H),
        ("blocks/0/mlp/linear_out/kernel", (64, 64), H),
        ("encoder/blocks/0/out/2/kernel", (64, 64), H),
        ("final_layer/adaLN_modulation/1/weight", (64, 128), H),
        ("layers_0/attn/q_head/kernel", (64, 64), H),
        ("layers_0/q_head/kernel", (64, 64), H),
    ],
    "readouts": [
        ("cls/seq_relationship/kernel", (64, 2), A),
        ("fc/kernel", (64, 10), A),
        ("fc.weight", (10, 64), A),
        ("params/fc/kernel", (64, 10), A),
        ("conv_out/kernel", (3, 3, 64, 3), A),
        ("decoder/conv_out/kernel", (3, 3, 64, 3), A),
        ("final_layer/linear/kernel", (64, 12), A),
        ("out.2.weight", (3, 64, 3, 3), A),
        ("decoder/kernel", (64, 100), A),
        ("to_vocab/kernel", (64, 100), A),
        ("vocab_proj/kernel", (64, 100), A),
        ("lmhead/kernel", (64, 100), A),
        ("output_linear/kernel", (64, 10), A),
        ("linear_out/kernel", (64, 10), A),
        ("dense_out/kernel", (64, 10), A),
        ("q_head/kernel", (64, 6), A),
        ("value_head/kernel", (64, 6), A),
        ("policy_head/kernel", (64, 6), A),
    ],
    "by hand": [
        ("wte", (100, 64), A),
        ("tok_emb", (100, 64), A),
        ("posEmb", (32, 64), A),
        ("lm_head", (64, 100), A),
        ("unembed/W_U", (64, 100), A),
        ("heads/0/kernel", (64, 10), A),
        ("heads_1/kernel", (64, 10), A),
        ("value_head/Dense_0/kernel", (64, 1), A),
        ("logits/kernel", (64, 10), A),
        ("output/kernel", (64, 10), A),
        ("overhead/kernel", (64, 64), H),
        ("headroom/kernel", (64, 64), H),
        ("multi_head_attention/out/kernel", (64, 64), H),
        ("multihead/kernel", (64, 64), H),
        ("embedded_systems/kernel", (64, 64), H),
        ("biased/kernel", (64, 64), H),
        ("gated/w", (64, 64), H),
        ("scale/kernel", (64, 64), H),  # a layer that makes scales
        ("blocks/2/head/kernel", (64, 64), H),
        ("w", (1, 64), A),
        ("w", (64, 1), A),
        ("w", (64,), A),
        ("w", (), A),
        ("", (3, 4), H),
    ],
}
ROWS = [(model, *row) for model, rows in TREES.items() for row in rows]


def test_leaves_are_taken_for_what_they_are_in_the_trees_of_models():
    assert len(ROWS) > 150
    wrong = []
    for model, path, shape, due in ROWS:
        found = hidden.by_name(path, shape)
        matrix = found.view.lengths(shape)[1:] if found.view and found.hidden else found
        if found.hidden != bool(due) or (isinstance(due, tuple) and matrix != due):
            wrong.append((model, path, shape, due, found))
    assert not wrong, "\n".join(map(str, wrong))


def test_axes_that_number_matrices_are_no_rows():
    """Scanned layers, first or second; and what is left of a vector is no axis."""
    for shape, axes in [
        ((3, 32, 4, 8), (0,)),
        ((32, 3, 4, 8), (1,)),
        ((32, 4, 8, 3), (-1,)),
    ]:
        found = hidden.by_name("layers/attention/query/kernel", shape, axes)
        assert found.hidden and found.view.lengths(shape) == ((3,), 32, 32)
    assert hidden.by_name("layers/scale_of", (3, 8), (0,)).reason.startswith("one axis")
    assert hidden.by_name("layers/w", (3, 1, 8), (0,)).reason == "one row"


def test_what_reads_in_is_told_from_heads_by_its_length():
    """By Flax's layout where that is known; where it is not, and lengths tie, nothing is."""
    plain = (4 * 4, 8)
    for path, shape, matrix in [
        ("attention/query/kernel", (2, 4, 8), (2, 32)),
        ("attention/wq", (2, 4, 8), (4, 16)),
        ("attention/wq", (4, 2, 8), (4, 16)),
        ("attention/wq", (4, 4, 8), plain),
        ("attention/query/weight", (4, 4, 8), plain),
        (
            "layers/attention/query/kernel",
            (3, 4, 2, 8),
            (24, 8),
        ),  # scanned, and not said
    ]:
        assert hidden.by_name(path, shape).view.lengths(shape)[1:] == matrix, path


ATTENTION = nnx.MultiHeadAttention(
    num_heads=4, in_features=32, qkv_features=32, decode=False, rngs=nnx.Rngs(0)
)
PARAMS = nnx.to_pure_dict(nnx.state(ATTENTION, nnx.Param))


def drawn(t, seed: int = 0):
    """Gradients whose matrices `[32, 32]` have singular values from 1 to 2."""
    rng = np.random.default_rng(seed)

    def leaf(x):
        if x.size != 32 * 32:
            return jnp.asarray(rng.normal(size=x.shape), x.dtype)
        u, v = (np.linalg.qr(rng.normal(size=(32, 32)))[0] for _ in range(2))
        return jnp.asarray((u * np.linspace(1, 2, 32) @ v).reshape(x.shape), x.dtype)

    return jax.tree.map(leaf, t)


def test_muon_sees_attention_as_the_matrices_it_is_made_of():
    """All of them are moved by about 1 in every direction, and biases as Adam moves them."""
    tx, g = gk.muon(1.0, adam_lr_ratio=0.01, weight_decay=0.0), drawn(PARAMS)
    u, _ = tx.update(g, tx.init(PARAMS), PARAMS)
    for name in ("query", "key", "value", "out"):
        step = np.asarray(u[name]["kernel"])
        assert step.shape == PARAMS[name]["kernel"].shape
        sizes = np.linalg.svd(step.reshape(32, 32), compute_uv=False)
        assert sizes.min() > 0.6 and sizes.max() < 1.25, (name, sizes)
        np.testing.assert_allclose(np.abs(u[name]["bias"]), 0.01, rtol=1e-3)


RECIPES = ["muon", "normuon", "dion", "shampoo", "galore", "fira", "snsm", "lorp"]
RECIPES += ["apollo", "apollo_mini", "grass_walk", "grass_jump"]


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_of_matrices_sees_attention_so(name: str):
    rows = {row.path: row for row in gk.routes(getattr(gk, name)(), PARAMS)}
    for path, row in rows.items():
        due = (
            ((32, 32), "matrices") if path.endswith("kernel") else (None, row.transform)
        )
        assert (row.matrix, row.transform) == due
        assert row.matrix or row.transform == ("average" if name == "snsm" else "adam")


LAYERS = np.random.default_rng(1).normal(size=(2, 12, 8))  # layers, in, heads of size


def laid_out(axis: int, *tail: int, dtype=jnp.float32):
    """`LAYERS`, numbered along `axis`, where the features are those of `tail`."""
    kernel = jnp.asarray(LAYERS, dtype).reshape(2, 12, *tail)
    return {"query": {"kernel": jnp.moveaxis(kernel, 0, axis)}}


@pytest.mark.parametrize("axis", [0, 1, -1])
def test_heads_stand_side_by_side_and_go_back(axis: int):
    """In scanned layers along any axis, in bfloat16 too, gradients as well as parameters."""
    told = []

    def note(g, state, params):
        told.append((g, params))
        return g, state

    tx = hidden.seen("soap", optax.GradientTransformation(lambda p: p, note), (axis,))
    g, p = laid_out(axis, 2, 4), laid_out(axis, 2, 4, dtype=jnp.bfloat16)
    u, state = tx.update(g, tx.init(p), p)
    for seen, dtype in zip(told[0], (jnp.float32, jnp.bfloat16)):
        kernel = seen["query"]["kernel"]
        assert kernel.dtype == dtype and kernel.ndim == 4
        matrices = layout.as_matrix(kernel, (axis,))
        np.testing.assert_array_equal(matrices, jnp.asarray(LAYERS, dtype))
    for got, due in ((u, g), (state, p)):
        np.testing.assert_array_equal(got["query"]["kernel"], due["query"]["kernel"])


@pytest.mark.parametrize(
    "name", ["galore", "soap", pytest.param("shampoo", marks=pytest.mark.slow)]
)
def test_a_recipe_moves_heads_as_the_matrix_that_they_are(name: str):
    tx = getattr(gk, name)(0.1, batch_axes=(1,))
    steps = []
    for tail in ((8,), (2, 4)):
        g = laid_out(1, *tail)
        state, update = tx.init(g), jax.jit(tx.update)
        for _ in range(2):
            u, state = update(g, state, g)
        assert u["query"]["kernel"].shape == g["query"]["kernel"].shape
        steps.append(u["query"]["kernel"].reshape(12, 2, 8))
    np.testing.assert_allclose(*steps, rtol=1e-3, atol=1e-6)


def test_what_is_remembered_of_a_leaf_has_its_shape():
    """So that it is sharded as the parameter is, whose metadata NNX gives it."""
    for make in (gk.muon, gk.dion, gk.shampoo):
        state = make().init(PARAMS)
        shapes = {x.shape for x in jax.tree.leaves(state) if x.size == 32 * 32}
        assert {(32, 4, 8), (4, 8, 32)} <= shapes and (32, 1, 32) not in shapes


@pytest.mark.parametrize("law", ["nnx", "sharding", "fixed_point", "abstract_init"])
def test_laws_hold_where_leaves_are_seen_as_others(law: str):
    """`wq` is 8 x 8 here, of two heads that stand on two devices."""
    table = check(gk.muon, laws=[law], shapes={"wq": (8, 2, 4), "bias": (4,)})
    assert table[0].outcome == "pass", str(table)


def test_an_explicit_mesh_keeps_the_layout():
    mesh = jax.make_mesh((4, 2), ("x", "y"), (AxisType.Explicit, AxisType.Explicit))
    tx, g = gk.muon(1.0), {"query": {"kernel": drawn(PARAMS)["query"]["kernel"]}}
    due, _ = tx.update(g, tx.init(g), g)
    with jax.set_mesh(mesh):
        place = NamedSharding(mesh, PartitionSpec("y", "x"))
        on = jax.device_put(g, place)
        u, state = jax.jit(tx.update)(on, tx.init(on), on)
        for t in (u, state.inner[0][0].mu):
            assert jax.typeof(t["query"]["kernel"]) == jax.typeof(on["query"]["kernel"])
    got, due = (np.asarray(t["query"]["kernel"]) for t in (u, due))
    np.testing.assert_allclose(got, due, atol=1e-5)


class Block(linen.Module):
    """Attention between an embedding and a readout."""

    @linen.compact
    def __call__(self, x):
        x = linen.Embed(11, 8)(x)
        x = x + linen.MultiHeadDotProductAttention(num_heads=2)(linen.LayerNorm()(x))
        return linen.Dense(11, name="lm_head")(x)


def test_linen_trees_are_read_too():
    words = jnp.zeros((1, 3), jnp.int32)
    params = jax.eval_shape(Block().init, jax.random.key(0), words)["params"]
    rows = gk.routes(gk.muon(), params)
    matrices = {row.path: row.matrix for row in rows if row.matrix}
    attention = "MultiHeadDotProductAttention_0"
    names = ("key", "out", "query", "value")
    assert matrices == {f"{attention}/{name}/kernel": (8, 8) for name in names}


TREE = {
    "wte": jnp.ones((9, 4)),
    "blocks": {"0": {"kernel": jnp.ones((4, 6)), "bias": jnp.ones(6)}},
    "head": {"kernel": jnp.ones((4, 9))},
}


def chosen(**choice) -> set[str]:
    """The paths of what is orthogonalized."""
    rows = gk.routes(gk.muon(**choice), TREE)
    return {row.path for row in rows if row.transform == "matrices"}


def test_hidden_is_what_the_user_says():
    kernel, head = "blocks/0/kernel", "head/kernel"
    assert chosen() == chosen(hidden={}) == {kernel}
    assert chosen(hidden="kernel") == {kernel, head}
    assert chosen(hidden=lambda path, x: False) == set()
    assert chosen(hidden=lambda path, x: x.shape == (4, 9)) == {head}
    assert chosen(hidden={head: True}) == {kernel, head}
    assert chosen(hidden={kernel: False, "wte": True}) == {"wte"}
    why = {row.path: row.why for row in gk.routes(gk.muon(hidden={head: True}), TREE)}
    assert why[head] == "hidden= says so" and why[kernel] == "a hidden matrix"


@pytest.mark.parametrize("given", [{"head/kernel": True}, "head"])
def test_a_rule_of_masked_leaves_is_no_mistake(given):
    tx = gk.muon(hidden=given)
    labels = {
        "wte": "a",
        "blocks": {"0": {"kernel": "a", "bias": "a"}},
        "head": {"kernel": "b"},
    }
    both = optax.partition({"a": tx, "b": tx}, labels)
    both.init(TREE)


@pytest.mark.parametrize(
    "name, given, said",
    [
        (
            "galore",
            {"blocks/0/bias": True},
            "leaf blocks/0/bias must have at least 2 axes",
        ),
        ("dion", lambda path, x: True, "leaf blocks/0/bias must have at least 2 axes"),
        ("shampoo", {"block/0/kernel": True}, "closest are ['blocks/0/kernel'"),
        ("fira", "block/0/kernel", "closest are ['blocks/0/kernel'"),
        ("muon", lambda path: True, "a predicate of path and leaf, must take both"),
        (
            "muon",
            lambda path, x: None,
            "return a bool, got None for leaf blocks/0/bias",
        ),
    ],
)
def test_leaves_that_cannot_be_matrices_are_named(name, given, said):
    with pytest.raises(ValueError) as caught:
        getattr(gk, name)(hidden=given).init(TREE)
    assert str(caught.value).startswith(f"gradkit.{name}: ") and said in str(
        caught.value
    )


def test_an_expression_takes_no_vectors():
    """What it says of a whole block is not meant for gains; what is said of one leaf is."""
    params = {
        "attn": {
            "q": {"kernel": jnp.ones((8, 8)), "bias": jnp.ones((2, 4))},
            "norm": {"w": jnp.ones((2, 4))},
            "scale": jnp.ones(()),
            "row": jnp.ones((1, 8)),
            "embed": jnp.ones((9, 8)),
        },
        "other": jnp.ones((8, 8)),
    }
    rows = {row.path: row for row in gk.routes(gk.muon(hidden="attn"), params)}
    taken = {path for path, row in rows.items() if row.transform == "matrices"}
    assert taken == {"attn/q/kernel", "attn/embed"}
    assert {path: row.why for path, row in rows.items() if path not in taken} == {
        "attn/q/bias": "matched, but named like a bias or a gain ('bias')",
        "attn/norm/w": "matched, but named like a norm ('norm')",
        "attn/scale": "matched, but no axis",
        "attn/row": "matched, but one row",
        "other": "hidden= says so",
    }
    for said in ({"attn/q/bias": True}, lambda path, x: path == "attn/q/bias"):
        rows = {row.path: row for row in gk.routes(gk.muon(hidden=said), params)}
        assert rows["attn/q/bias"].transform == "matrices"


@pytest.mark.parametrize(
    "is_so", [True, np.bool_(True), np.array(True), jnp.array(True)]
)
def test_a_predicate_may_return_any_bool(is_so):
    with jax.ensure_compile_time_eval():
        assert chosen(hidden=lambda path, x: is_so if x.ndim == 2 else False)


@pytest.mark.parametrize("axes", [(5,), (-4,), (0, 0), (0, -3)])
@pytest.mark.parametrize("name", ["muon", "galore"])
def test_batch_axes_are_axes_of_every_hidden_leaf(name, axes):
    params = {"up": {"w": jnp.ones((3, 4, 6)), "bias": jnp.ones(6)}}
    with pytest.raises(ValueError, match=rf"gradkit.{name}: .*leaf up/w"):
        getattr(gk, name)(batch_axes=axes).init(params)


def test_leaves_that_are_no_numbers_are_named_by_the_recipe():
    params = {"up": jnp.ones((3, 4)), "base": jnp.ones((3, 4), jnp.int8)}
    with pytest.raises(
        TypeError, match=r"gradkit.muon: leaf base .*int8.*gradkit.route"
    ):
        gk.muon(0.1).init(params)


@pytest.mark.parametrize(
    "path, shape, why",
    [
        ("mlp.up.weight", (8, 4), "a hidden matrix, read as [in, out]"),
        ("conv.weight", (8, 4, 3, 3), "a hidden matrix, read as [out, in, ...]"),
        ("moe/experts/up", (8, 4, 6), "batch_axes or view_by_pattern for stacks"),
        ("layers/mlp/up/kernel", (8, 4, 6), "view_by_pattern for stacks"),
        ("dwconv/kernel", (7, 7, 1, 64), "one input a channel"),
        ("attn/key/kernel", (64, 1, 16), "a hidden matrix"),
        ("layers/0/up/kernel", (8, 4), "a hidden matrix"),
    ],
)
def test_layouts_that_names_leave_open_are_told(path, shape, why):
    assert hidden.by_name(path, shape).reason.endswith(why)


def test_a_torch_convolution_is_moved_as_outputs_by_all_else():
    g = {"conv.weight": jax.random.normal(jax.random.key(2), (4, 3, 2, 2))}
    flat = {"w": g["conv.weight"].reshape(4, 12)}
    tx = gk.muon()
    u, v = (tx.update(t, tx.init(t), t)[0] for t in (g, flat))
    np.testing.assert_allclose(u["conv.weight"].reshape(4, 12), v["w"], atol=1e-6)


@pytest.mark.parametrize("given", ["a(", 3, {"a": 1}, ["a"]])
def test_what_hidden_cannot_be_is_said_at_once(given):
    with pytest.raises(ValueError, match=r"gradkit.muon: hidden must be .*, got "):
        gk.muon(hidden=given)


def test_the_old_name_is_gone():
    with pytest.raises(TypeError, match="others"):
        gk.muon(others="embed")


@pytest.mark.parametrize("make", [gk.soap, gk.psgd, gk.muon])
@pytest.mark.parametrize("batch_axes", [(0, 0), (5,), (0, -4)])
def test_batch_axes_that_are_none_of_a_leaf_are_named(make, batch_axes) -> None:
    params = {"up": {"kernel": jnp.ones((3, 4, 5)), "more": jnp.ones((2, 3, 4, 5))}}
    name = make.__name__
    with pytest.raises(ValueError, match=rf"gradkit\.{name}: .*leaf up/"):
        make(batch_axes=batch_axes).init(params)
