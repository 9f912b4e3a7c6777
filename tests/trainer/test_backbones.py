import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from efficientnet_lite_pytorch import EfficientNet
from safetensors.torch import save_file
from torch import nn

from trainer.backbones import (
    BACKBONES,
    build_classifier,
    load_model,
    normalize,
    preprocess_for,
    pretrained_state,
    trainable,
)
from trainer.config import TrainConfig
from trainer.errors import UsageError
from trainer.features import folded


@pytest.mark.parametrize("name", BACKBONES)
@torch.inference_mode()
def test_every_backbone_gives_the_features_it_promises(name):
    config = TrainConfig(backbone=name, weights="none")
    preprocess, entry = preprocess_for(config), BACKBONES[name]
    classifier = build_classifier(config, classes=3).eval()
    image = torch.zeros(1, 3, preprocess.crop, preprocess.crop)
    assert classifier.backbone(image).shape == (1, entry.feature_dim)
    assert classifier(image).shape == (1, 3)
    assert entry.licence
    assert preprocess.resize >= preprocess.crop


@torch.inference_mode()
def test_padding_in_the_convolution_changes_nothing():
    ours = build_classifier(TrainConfig(backbone="efficientnet_lite0"), classes=3).backbone.eval()
    package = EfficientNet.from_name("efficientnet-lite0", image_size=224, num_classes=1).eval()
    state = {name.removeprefix("network."): value for name, value in ours.state_dict().items()}
    assert package.load_state_dict(state, strict=False).missing_keys == ["_fc.weight", "_fc.bias"]
    image = torch.rand(2, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    expected = package.extract_features(image).mean((2, 3))
    torch.testing.assert_close(ours(image), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", BACKBONES)
@torch.inference_mode()
def test_a_folded_network_gives_the_same_features(name):
    config = TrainConfig(backbone=name, weights="none")
    backbone = build_classifier(config, classes=3).backbone.eval()
    for module in backbone.modules():
        if isinstance(module, nn.BatchNorm2d):  # as if it had been trained
            for tensor in (module.weight, module.bias, module.running_mean, module.running_var):
                tensor.uniform_(0.5, 1.5)
    image = torch.rand(1, 3, *[preprocess_for(config).crop] * 2)
    expected, network = backbone(image), folded(backbone)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in network.modules())
    largest = float(expected.abs().max())
    torch.testing.assert_close(network(image), expected, rtol=1e-3, atol=1e-3 * largest)
    assert torch.equal(backbone(image), expected)


def test_torchvisions_networks_come_alone_and_leave_it_whole():
    code = """
import sys
from trainer.backbones import BACKBONES
BACKBONES["resnet18"].build(224)
print("torch._dynamo" in sys.modules, "torchvision.models.detection" in sys.modules)
import torchvision
print(torchvision.models.resnet18().fc.out_features, torchvision.__version__ is not None)
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.split() == ["False", "False", "1000", "True"]


@pytest.mark.parametrize("name", BACKBONES)
def test_unfreeze_last_trains_some_of_the_backbone_and_none_trains_nothing_of_it(name):
    config = TrainConfig(backbone=name, weights="none", unfreeze="last")
    classifier = build_classifier(config, classes=3)

    def trained(unfreeze: str) -> int:
        trainable(classifier, replace(config, unfreeze=unfreeze))
        return sum(p.numel() for p in classifier.backbone.parameters() if p.requires_grad)

    assert 0 == trained("none") < trained("last") < trained("all")


def test_offline_weights_know_imagenet():
    # With pretrained weights, features of a picture and its inverse lie far apart.
    image = torch.rand(1, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    spread = {}
    for weights in ("pretrained", "none"):
        config = TrainConfig(backbone="efficientnet_lite0", weights=weights)
        backbone = build_classifier(config, classes=2).backbone.eval()
        with torch.inference_mode():
            spread[weights] = float((backbone(image) - backbone(-image)).norm())
    assert spread["pretrained"] > 5 * spread["none"]


def test_the_head_starts_the_same_whatever_the_backbone_draws():
    heads = [
        build_classifier(TrainConfig(backbone="efficientnet_lite0", weights=weights), 4).head.weight
        for weights in ("pretrained", "none")
    ]
    assert torch.equal(*heads)


def test_random_weights_are_drawn_even_after_a_file_replaced_some():
    first, _, second = [
        build_classifier(TrainConfig(backbone="efficientnet_lite0", weights=weights), 2)
        for weights in ("none", "pretrained", "none")
    ]
    for one, other in zip(first.parameters(), second.parameters(), strict=True):
        assert torch.equal(one, other)
    assert first.backbone.network._conv_stem.weight.std() > 0.01


def test_weights_that_cannot_be_fetched_name_the_backbones_that_work_offline(monkeypatch, tmp_path):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")  # nothing listens there
    with pytest.raises(UsageError, match=r"offline: efficientnet_lite0, efficientnet_lite2"):
        pretrained_state("resnet50", "pretrained")


def test_weights_from_a_file(tmp_path: Path):
    source = build_classifier(TrainConfig(backbone="resnet18", weights="none", seed=5), 2).backbone
    save_file(source.state_dict(), tmp_path / "w.safetensors")
    torch.save(source.state_dict(), tmp_path / "w.pth")
    for name in ("w.safetensors", "w.pth"):
        config = TrainConfig(backbone="resnet18", weights=str(tmp_path / name))
        assert torch.equal(build_classifier(config, 2).backbone.conv1.weight, source.conv1.weight)


@pytest.mark.parametrize("backbone", ["efficientnet_lite0", "resnet50"])
def test_a_file_of_another_networks_weights_is_refused(tmp_path: Path, backbone):
    save_file(
        build_classifier(TrainConfig(backbone="resnet18", weights="none"), 2).backbone.state_dict(),
        tmp_path / "w.safetensors",
    )
    config = TrainConfig(backbone=backbone, weights=str(tmp_path / "w.safetensors"))
    with pytest.raises(UsageError, match=f"does not fit {backbone}"):
        build_classifier(config, 2)


@pytest.mark.parametrize(
    ("fill", "message"),
    [
        (lambda folder: None, "model is not there: give the folder that trainer.train has written"),
        (lambda folder: folder.touch(), "model is a file: give the folder"),
        (
            lambda folder: folder.mkdir(),
            "model has no config.json, labels.json, preprocess.json, w",
        ),
        (lambda folder: in_model(folder, "{}"), "model is no model folder of trainer.train: "),
        (lambda folder: in_model(folder, "[]"), "model is no model folder of trainer.train: "),
        (lambda folder: in_model(folder, "{"), "model is no model folder of trainer.train: "),
    ],
)
def test_what_is_no_model_folder_is_refused_in_one_line(
    tmp_path: Path, fill: Callable[[Path], object], message: str
):
    fill(tmp_path / "model")
    with pytest.raises(UsageError, match=message) as refusal:
        load_model(tmp_path / "model")
    assert "Errno" not in str(refusal.value)
    assert "\n" not in str(refusal.value)


def in_model(folder: Path, content: str) -> None:
    folder.mkdir()
    for name in ("config.json", "labels.json", "preprocess.json", "weights.safetensors"):
        (folder / name).write_text(content)


def test_unknown_names_list_what_there_is():
    with pytest.raises(UsageError, match="resnet50, resnet18"):
        preprocess_for(TrainConfig(backbone="resnet51"))


def test_a_transformers_pretrained_size_is_fixed():
    with pytest.raises(UsageError, match="224 pixels only"):
        preprocess_for(TrainConfig(backbone="vit_b_16", image_size=256))


def test_normalize_gives_mean_zero_and_unit_deviation():
    preprocess = preprocess_for(TrainConfig(backbone="resnet18"))
    pixels = torch.tensor(preprocess.mean).mul(255).expand(1, 4, 4, 3)
    assert normalize(pixels, preprocess).abs().max() < 1e-6
    brighter = pixels + torch.tensor(preprocess.std) * 255
    assert torch.allclose(normalize(brighter, preprocess), torch.ones(1, 3, 4, 4), atol=1e-5)
