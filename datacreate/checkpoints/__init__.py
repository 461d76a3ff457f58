"""Checkpoints: which models there are, how to download them, and which one a name or path means.

presets.py     models/*.yaml: sources, engine settings, sampling
pull.py        download a preset or a Hub id
hub.py         download from the Hub, in a process of its own
checkpoint.py  name, Hub id, folder or .gguf file -> Checkpoint; LoRA adapters
folder.py      checks and identity of folders of safetensors
gguf.py        parts and headers of GGUF files; their conversion to safetensors, for vLLM
"""
