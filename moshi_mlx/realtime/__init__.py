"""The machine room: clocks and buffers between an audio device and a stepper. Imports no MLX and no session."""
