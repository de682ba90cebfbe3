"""How well machines are chosen: GPUs handed out until no more fit."""
