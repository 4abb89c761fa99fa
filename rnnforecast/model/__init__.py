"""The network: its forecasts in numpy, its training in torch, artifact and checkpoint.

Libraries: numpy, pyarrow, safetensors, threadpoolctl, torch.
"""
