"""Tiny pipelines of the real classes of each family, of random weights: what a plan and a sampler see of them is what
they see of published ones. Sizes are those with which diffusers tests its pipelines."""

import inspect
from pathlib import Path

import torch

from augbench.core.files import whole

SIDE = 32  # pixels of their pictures


def write(folder: Path, family: str) -> Path:
    """A pipeline of a family: a key of ``PIPELINES``. Returns its folder."""
    with whole(folder) as temporary:
        torch.manual_seed(0)
        pipeline = PIPELINES[family](Path(temporary) / "tokenizers")
        pipeline.save_pretrained(temporary)
    return Path(folder)


def _clip_tokenizer(folder: Path):
    from random_pipelines import write_tokenizer
    from transformers import CLIPTokenizer

    write_tokenizer(folder, 77)
    return CLIPTokenizer.from_pretrained(folder)


def _clip(projection: bool, width: int = 32):
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    config = CLIPTextConfig(
        hidden_size=width, intermediate_size=37, num_hidden_layers=3, num_attention_heads=4, projection_dim=32,
        bos_token_id=0, eos_token_id=2, hidden_act="gelu",
    )  # fmt: skip
    return (CLIPTextModelWithProjection if projection else CLIPTextModel)(config)


def _words(text: str = ""):
    """A vocabulary of letters and of the words of a text, as SentencePiece has it."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    letters = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -1.0)]
    letters += [(chr(code), -2.0) for code in range(33, 127)]
    words = [(f"▁{word}", -1.0) for word in dict.fromkeys(text.split())]
    tokenizer = Tokenizer(models.Unigram(letters + words, unk_id=2))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    return tokenizer


def _t5():
    from transformers import T5Config, T5EncoderModel, T5TokenizerFast

    tokenizer = T5TokenizerFast(tokenizer_object=_words(), extra_ids=0)
    config = T5Config(vocab_size=128, d_model=32, d_kv=8, d_ff=37, num_layers=2, num_heads=4, dropout_rate=0.0)
    return T5EncoderModel(config), tokenizer


def _vae(channels: int = 4, **more):
    from diffusers import AutoencoderKL

    return AutoencoderKL(
        block_out_channels=(16, 32), down_block_types=["DownEncoderBlock2D"] * 2,
        up_block_types=["UpDecoderBlock2D"] * 2, latent_channels=channels, norm_num_groups=8,
        sample_size=SIDE, **more,
    )  # fmt: skip


def _sdxl(folder):
    from diffusers import EulerDiscreteScheduler, StableDiffusionXLPipeline, UNet2DConditionModel

    unet = UNet2DConditionModel(
        sample_size=16, block_out_channels=(32, 64), layers_per_block=1, norm_num_groups=16,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"), up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        attention_head_dim=(2, 4), use_linear_projection=True, addition_embed_type="text_time",
        addition_time_embed_dim=8, transformer_layers_per_block=(1, 2), cross_attention_dim=64,
        projection_class_embeddings_input_dim=80,
    )  # fmt: skip
    scheduler = EulerDiscreteScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", steps_offset=1, timestep_spacing="leading"
    )
    return StableDiffusionXLPipeline(
        vae=_vae(), text_encoder=_clip(False), text_encoder_2=_clip(True), tokenizer=_clip_tokenizer(folder),
        tokenizer_2=_clip_tokenizer(folder), unet=unet, scheduler=scheduler,
    )  # fmt: skip


def _sd3(folder):
    from diffusers import FlowMatchEulerDiscreteScheduler, SD3Transformer2DModel, StableDiffusion3Pipeline

    transformer = SD3Transformer2DModel(
        sample_size=16, patch_size=1, in_channels=4, num_layers=2, attention_head_dim=8, num_attention_heads=4,
        joint_attention_dim=64, caption_projection_dim=32, pooled_projection_dim=64, out_channels=4,
    )  # fmt: skip
    return StableDiffusion3Pipeline(
        vae=_vae(shift_factor=0.06, scaling_factor=1.5, use_quant_conv=False, use_post_quant_conv=False),
        text_encoder=_clip(True), text_encoder_2=_clip(True), text_encoder_3=None, tokenizer_3=None,
        tokenizer=_clip_tokenizer(folder), tokenizer_2=_clip_tokenizer(folder),
        transformer=transformer, scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
    )  # fmt: skip


def _flux(folder):
    from diffusers import FlowMatchEulerDiscreteScheduler, FluxPipeline, FluxTransformer2DModel

    transformer = FluxTransformer2DModel(
        patch_size=1, in_channels=4, num_layers=1, num_single_layers=1, attention_head_dim=16, num_attention_heads=2,
        joint_attention_dim=32, pooled_projection_dim=32, axes_dims_rope=[4, 4, 8], guidance_embeds=True,
    )  # fmt: skip
    encoder, tokenizer = _t5()
    return FluxPipeline(
        vae=_vae(1, shift_factor=0.06, scaling_factor=1.5, use_quant_conv=False, use_post_quant_conv=False),
        text_encoder=_clip(False), text_encoder_2=encoder, tokenizer=_clip_tokenizer(folder), tokenizer_2=tokenizer,
        transformer=transformer, scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0, use_dynamic_shifting=True),
    )  # fmt: skip


def _sana(folder):
    from diffusers import AutoencoderDC, DPMSolverMultistepScheduler, SanaPipeline, SanaTransformer2DModel
    from transformers import Gemma2Config, Gemma2Model, PreTrainedTokenizerFast

    transformer = SanaTransformer2DModel(
        patch_size=1, in_channels=4, out_channels=4, num_layers=1, num_attention_heads=2, attention_head_dim=4,
        num_cross_attention_heads=2, cross_attention_head_dim=4, cross_attention_dim=8, caption_channels=8,
        sample_size=16,
    )  # fmt: skip
    vae = AutoencoderDC(
        in_channels=3, latent_channels=4, attention_head_dim=2, encoder_block_types=("ResBlock", "EfficientViTBlock"),
        decoder_block_types=("ResBlock", "EfficientViTBlock"), encoder_block_out_channels=(8, 8),
        decoder_block_out_channels=(8, 8), encoder_qkv_multiscales=((), (5,)), decoder_qkv_multiscales=((), (5,)),
        encoder_layers_per_block=(1, 1), decoder_layers_per_block=[1, 1], downsample_block_type="conv",
        upsample_block_type="interpolate", decoder_norm_types="rms_norm", decoder_act_fns="silu", scaling_factor=0.41,
    )  # fmt: skip
    config = Gemma2Config(
        head_dim=8, hidden_size=8, intermediate_size=64, num_attention_heads=2, num_hidden_layers=1, vocab_size=512,
        num_key_value_heads=2, initializer_range=0.02, max_position_embeddings=8192,
    )  # fmt: skip
    # Before each prompt the pipeline puts an instruction, which in letters would take most of the time.
    instruction = inspect.signature(SanaPipeline.__call__).parameters["complex_human_instruction"].default
    words = _words(" ".join(instruction))
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=words, pad_token="<pad>", eos_token="</s>", unk_token="<unk>", padding_side="right"
    )
    scheduler = DPMSolverMultistepScheduler(
        prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0, algorithm_type="dpmsolver++"
    )
    return SanaPipeline(
        tokenizer=tokenizer, text_encoder=Gemma2Model(config), vae=vae, transformer=transformer, scheduler=scheduler
    )


def _pixart(folder):
    from diffusers import DPMSolverMultistepScheduler, PixArtSigmaPipeline, PixArtTransformer2DModel

    transformer = PixArtTransformer2DModel(
        sample_size=16, num_layers=2, patch_size=2, attention_head_dim=8, num_attention_heads=3, caption_channels=32,
        in_channels=4, cross_attention_dim=24, out_channels=8, attention_bias=True, activation_fn="gelu-approximate",
        num_embeds_ada_norm=1000, norm_type="ada_norm_single", norm_elementwise_affine=False, norm_eps=1e-6,
        use_additional_conditions=False,
    )  # fmt: skip
    encoder, tokenizer = _t5()
    return PixArtSigmaPipeline(
        tokenizer=tokenizer, text_encoder=encoder, vae=_vae(), transformer=transformer,
        scheduler=DPMSolverMultistepScheduler(),
    )  # fmt: skip


PIPELINES = {"sdxl": _sdxl, "sd3": _sd3, "flux": _flux, "sana": _sana, "pixart": _pixart}
