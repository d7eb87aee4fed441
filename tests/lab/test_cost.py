"""What a stage is estimated to cost, beside what a real training holds; a step that cannot fit says so."""

import os
import subprocess
import sys
from dataclasses import replace

import pytest

from ucvgl.encoders import EncoderConfig
from ucvgl.errors import InputError
from ucvgl.heads import SslLoss
from ucvgl.lab.rows import Stage
from ucvgl.lab.train import Cost, check_fits, cost_of, encoder_bytes
from ucvgl.methods.sample4geo import Sample4Geo
from ucvgl.methods.ucvgl import Curriculum, Pretraining
from ucvgl.methods.vg_ssl import VgSsl
from ucvgl.training import TrainingConfig

SMALL = EncoderConfig("convnext_atto", image_px=(64, 64))
PARAMETERS = 3.4e6  # of ConvNeXt-Atto, about

MEASURE = """
import gc
import torch
from ucvgl.encoders import Encoder, EncoderConfig
from ucvgl.lab.train import encoder_bytes
from ucvgl.training import TrainingConfig, adamw
torch.set_num_threads(1)
config, count = EncoderConfig("convnext_atto", pooling="safa", image_px=(128, 128)), 64
encoder = Encoder(config)

def steps(images, n):
    optimiser = adamw(encoder, TrainingConfig())
    for _ in range(n):
        optimiser.zero_grad()
        encoder(images).sum().backward()
        optimiser.step()
    optimiser.zero_grad()

def status(name):
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith(name)) * 1024

steps(torch.rand(2, 3, 128, 128), 1)  # what the kernels keep
gc.collect()
open("/proc/self/clear_refs", "w").write("5")
before = status("VmRSS") - sum(4 * p.numel() for p in encoder.parameters())
steps(torch.rand(count, 3, 128, 128), 2)
fixed, *_, image = encoder_bytes(config, "fp32")
print((fixed + count * image) / (status("VmHWM") - before))
"""


@pytest.mark.slow
@pytest.mark.skipif(not os.access("/proc/self/clear_refs", os.W_OK), reason="needs Linux's count of a process's memory")
def test_the_estimate_is_within_a_fifth_of_what_a_run_takes():
    done = subprocess.run([sys.executable, "-c", MEASURE], capture_output=True, text=True, check=True)
    assert 0.8 < float(done.stdout.split()[-1]) < 1.2


def cost(name, config, items=64):
    return cost_of(Stage(name, (config,), lambda: None, items=items))


def test_an_estimate_follows_the_settings():
    plain = Pretraining(SMALL, SMALL, intra=TrainingConfig(chunk=16), cross=TrainingConfig(chunk=16))
    intra, cross = (cost(name, plain) for name in ("intra-view", "cross-view"))
    assert (intra.rows, cross.rows, intra.fixed) == (16, 16, cross.fixed)
    assert intra.row == 2 * cross.row
    assert cost("curriculum", Curriculum(plain, training=TrainingConfig(chunk=16))).memory == cross.memory
    assert cross.fixed > 2 * 15 * PARAMETERS  # two encoders: weights, gradients and two moments
    assert 2 * 7 * PARAMETERS < cross.disk < 2 * 9 * PARAMETERS  # of each the weights, twice
    assert intra.disk > 1.9 * cross.disk  # and the moments
    one = cost("sample4geo", Sample4Geo(SMALL, SMALL, training=TrainingConfig()))
    assert (one.fixed, one.row) == (cross.fixed // 2, cross.row)
    photos = VgSsl(SMALL, SslLoss("triplet"), TrainingConfig(batch_size=8))
    assert cost("vg-ssl", photos).row == 6 * cross.row  # a query, its positive and ten negatives
    larger = cost("sample4geo", Sample4Geo(*[replace(SMALL, image_px=(128, 128))] * 2, training=TrainingConfig()))
    assert 3.5 < larger.row / one.row < 4.5
    assert cost("cross-view", replace(plain, cross=None)) == Cost()
    full, half = (encoder_bytes(SMALL, precision)[-1] for precision in ("fp32", "bf16"))
    assert half < 0.8 * full
    lite = EncoderConfig("tf_efficientnet_lite0", "package", depth=3, image_px=(64, 64))
    learnt, frozen = (encoder_bytes(replace(lite, pretrained=p), "fp32")[-1] for p in ("package", "frozen package"))
    assert frozen < 0.1 * learnt


def test_a_step_that_cannot_fit_says_so_with_what_would():
    step = Cost(fixed=2 << 30, row=1 << 28, rows=128)
    check_fits("key", step, 64 << 30)
    for gib, said in ((10, r"at most 10.0 GiB.*about 34.0 GiB for 128 rows.*chunk=32"), (2, "not even one row fits")):
        with pytest.raises(InputError, match=said):
            check_fits("key", step, gib << 30)
