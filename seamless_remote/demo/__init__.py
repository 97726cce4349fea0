"""The main job, shown on real services on this machine: `python -m seamless_remote.demo`.

`steps` tells the story, `programs` holds the user's programs in it, `place` is the temporary HOME
that they run in, and ends everything that was started there.
"""
