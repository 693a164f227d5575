"""Runs that are killed and interrupted, as a program: ``python runs.py NAME CHECKPOINT EVENT``.

Every run of one name is the same, whoever starts it. EVENT is ``kill:K`` (SIGKILL at the end of
step K, before its checkpoint), ``hang:K`` (step K waits, once it has said "hanging") or ``endless``
("step" and its number after each one). A run goes on from its checkpoint where there is one.
"""

import os
import signal
import sys
import time

import numpy as np
from problems import blobs, cnn

import tinycompress as tc
from tinycompress import optim
from tinycompress.data import RandomAffine, RandomShift
from tinycompress.train import Callback, EarlyStopping, Supervised, fit

EPOCHS, STEPS = 3, 7  # 7 steps an epoch


def momentum():
    """SGD with momentum, one cycle step by step, masks, augmentation, clipping."""
    model = cnn()
    weight = model.get_submodule("fc").weight
    weight.mask = np.random.default_rng(0).random(weight.shape) < 0.4
    weight.data *= weight.mask
    optimizer = optim.SGD(model.parameters(), lr=0.05, momentum=0.9, nesterov=True)
    schedule = optim.OneCycleLR(optimizer, 0.1, total_steps=EPOCHS * STEPS)
    return (
        model,
        optimizer,
        {"schedule": schedule, "augment": RandomShift(1), "clip_grad_norm": 1.0},
    )


def adam():
    """AdamW, a plateau epoch by epoch, a callback that counts, another augmentation."""
    model = cnn()
    optimizer = optim.AdamW(model.parameters(), lr=0.01)
    schedule = optim.ReduceLROnPlateau(optimizer, patience=0, threshold=0.5)
    options = {"augment": RandomAffine(translate=1.0), "validate": blobs(60, seed=2)}
    return model, optimizer, {"schedule": schedule, "callbacks": [EarlyStopping(9)], **options}


RUNS = {"momentum": momentum, "adam": adam}


def start(name, callbacks=(), epochs=EPOCHS, **options):
    """(model, history) of the run of this name."""
    tc.manual_seed(0)
    model, optimizer, own = RUNS[name]()
    own["callbacks"] = [*own.get("callbacks", []), *callbacks]
    options = {"batch_size": 29, "resume": "checkpoint" in options, **own, **options}
    return model, fit(model, blobs(), epochs, optimizer, **options)


class Kill(Callback):
    """What happens in reality at no particular moment, at a particular one."""

    def __init__(self, step):
        self.step = step

    def on_step_end(self, run):
        if run.step == self.step:
            os.kill(os.getpid(), signal.SIGKILL)


class Say(Callback):
    """Tells the parent process how far the run is."""

    def on_step_end(self, run):
        print("step", run.step, flush=True)


class Hang(Supervised):
    """An objective that never comes back from one step."""

    step = 0

    def __call__(self, model, *batch):
        type(self).step += 1
        if self.step == self.at:
            print("hanging", flush=True)
            time.sleep(60)
        return super().__call__(model, *batch)


def main(name, checkpoint, event):
    signal.signal(signal.SIGINT, signal.default_int_handler)  # whatever the parent's was
    kind, _, step = event.partition(":")
    options = {"checkpoint": checkpoint, "checkpoint_every": 3}
    if kind == "kill":
        options["callbacks"] = [Kill(int(step))]
    elif kind == "hang":
        Hang.at = int(step)
        options |= {"objective": Hang(), "workers": 1, "shard_size": 100}
    elif kind == "endless":
        options |= {
            "callbacks": [Say()],
            "epochs": 100_000,
            "schedule": None,
            "checkpoint_every": 1,
        }
    start(name, **options)


if __name__ == "__main__":
    main(*sys.argv[1:])
