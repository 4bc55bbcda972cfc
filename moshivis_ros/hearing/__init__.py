"""What the user said, and whether anybody is speaking, beside the conversation: for the robot's other programs.

The sound is 16 kHz mono in frames of 32 ms, as Silero's detector takes it; the libraries come with faster-whisper.
"""

SAMPLE_RATE = 16000
FRAME_SIZE = 512  # samples
FRAME_SECONDS = FRAME_SIZE / SAMPLE_RATE

MISSING = "hearing what the user says needs faster-whisper: `pip install faster-whisper`"
