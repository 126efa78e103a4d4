"""What other programs call our options, to answer with the one that was meant. Standard library only."""

from __future__ import annotations

# Option → what other programs call it, without dashes in front.
_FOREIGN = {
    "--prompt": "p text caption positive-prompt",
    "--negative-prompt": "n negative neg-prompt n-prompt uncond-prompt",
    "--output": "o out outfile save-path save-file output-path output-dir",
    "--bundle": "b m model model-path ckpt ckpt-path ckpt-dir checkpoint engine-dir",
    "--width": "w size resolution",
    "--num-frames": "f frames length video-length n-frames",
    "--steps": "s num-steps n-steps sampling-steps infer-steps sample-steps",
    "--guidance-scale": "cfg cfg-scale guidance scale true-cfg-scale",
    "--stg-scale": "stg stg-strength",
    "--skip-block-list": "stg-blocks stg-block-list slg-layers",
    "--timesteps": "sigmas custom-timesteps",
    "--sampler": "scheduler sample-solver",
    "--image": "i img init-image input-image image-path first-frame",
    "--condition": "conditioning-media-paths conditioning-start-frames conditioning-strengths keyframes "
    "last-frame end-image",
    "--input-video": "video init-video input-media-path v2v",
    "--denoise-strength": "strength denoise denoising-strength",
    "--seed": "manual-seed noise-seed base-seed random-seed",
    "--seeds": "batch batch-size num-videos num-videos-per-prompt n-samples",
    "--prompts": "prompt-file from-file prompt-list batch-file",
    "--config": "c yaml pipeline-config",
    "--precision": "dtype torch-dtype fp16 bf16 fp32 fp8 half quantization",
    "--backend": "provider ep execution-provider cpu cuda trt tensorrt rtx",
    "--device": "gpu-id device-id",
    "--vae-memory": "vae-tiling enable-vae-tiling tile-size tiled-vae",
    "--threads": "j t num-threads",
    "--overwrite": "y yes force replace",
    "--codec": "vcodec encoder video-codec",
    "--crf": "q quality video-quality",
    "--bit-depth": "bits depth pix-fmt",
    "--from": "remake again reproduce from-video",
    "--sources": "media-dir inputs",
    "--no-metadata": "strip-metadata anonymous",
    "--list-presets": "presets show-presets",
}
FOREIGN = {word: option for option, words in _FOREIGN.items() for word in words.split()}
