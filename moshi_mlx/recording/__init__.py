"""A conversation on disk. Imports no MLX and no session.

`Recorder` (recorder.py) writes a folder as the conversation goes; `finish` (finish.py) makes the files that people open
from it, or from what a killed one left; `open_recording` (folder.py) and `understand` (finish.py) read it.

    session.json          where it came from: model, hashes, seed, sampling, versions        info.py
    conversation.wav      left the user, right Moshi, frame beside frame; further parts -2, … wav.py
    codes.bin             both sides' codes and the text tokens, 11 bytes a side and frame     codes.py
    transcript.jsonl      Moshi's text by step        events.jsonl   marks, resets, measures   recorder.py
    transcript.txt .srt .vtt .json                                                             words.py
    timeline.svg                                                                               timeline.py
    player.html                                                                                player.py, page/

activity.py finds speech, turns.py turn-taking; script.py plays a scripted user; compare.py sets recordings side by
side.
"""
