"""Real trainings, by gpuopt and by ``torch.optim``, side by side: see ``bench/SCHEMA.md`` for what is reported.

- :mod:`data` is real text and real images, each with a part that is held out;
- :mod:`gpt` and :mod:`convnet` are the models, in plain PyTorch;
- :mod:`tasks` says what is trained on what, how, and to which loss;
- :mod:`ways` are the contenders: gpuopt on each driver, and torch's own;
- :mod:`lockstep` trains all of them in turns, with a clock for each part of a step;
- :mod:`formats` trains one of them in each format of weights instead, from several seeds;
- :mod:`embedding` sees how large the steps of optimizers become where an embedding's rows are rarely used;
- :mod:`results` judges what came out, :mod:`table` shows it, :mod:`command` is the command.
"""
