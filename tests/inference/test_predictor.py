from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from inference.archive import ArchiveError, Model, open_model
from inference.predictor import Predictor, top_k

if TYPE_CHECKING:
    from conftest import Change


def test_batches_of_any_size_give_each_image_its_own_answer(model: Model) -> None:
    predictor = Predictor(model, threads=2)
    colours = np.repeat(np.eye(3, dtype=np.uint8) * 255, 3, axis=0)[:, None, None]
    images = np.broadcast_to(colours, (9, 32, 32, 3)).copy()
    whole = predictor.probabilities(images)
    assert (whole.shape, whole.dtype) == ((9, 3), np.float32)
    np.testing.assert_array_equal(whole.argmax(1), [0, 0, 0, 1, 1, 1, 2, 2, 2])
    np.testing.assert_allclose(whole.sum(1), 1, rtol=1e-6)
    single = np.concatenate([predictor.probabilities(image[None]) for image in images])
    np.testing.assert_allclose(whole, single, rtol=1e-6)
    beside = predictor.probabilities(images, is_alone=False)
    np.testing.assert_allclose(whole, beside, rtol=1e-6)


@given(
    hnp.arrays(np.float32, st.integers(1, 12), elements=st.floats(0, 1, width=32)),
    st.integers(1, 8),
)
def test_top_k_gives_the_best_first(probabilities: np.ndarray, k: int) -> None:
    labels = [f"class {index}" for index in range(len(probabilities))]
    best = top_k(probabilities, labels, k)
    assert len(best) == min(k, len(labels))
    assert [entry["label"] for entry in best] == [labels[entry["index"]] for entry in best]
    order = [(-entry["probability"], entry["index"]) for entry in best]
    assert order == sorted(order)
    left_out = np.delete(probabilities, [entry["index"] for entry in best])
    assert all(best[-1]["probability"] >= value for value in left_out)


def test_a_network_that_cannot_be_loaded_is_refused(model_folder: Path, rewrite: "Change") -> None:
    (model_folder / "model.onnx").write_bytes(b"no network")
    rewrite(model_folder)
    with pytest.raises(ArchiveError, match="not loadable"):
        Predictor(open_model(model_folder))


@pytest.mark.parametrize("spoil", ["labels", "crop", "name", "type"])
def test_a_network_that_does_not_fit_its_archive_is_refused(
    model_folder: Path, rewrite: "Change", spoil: str
) -> None:
    path = model_folder / "model.onnx"
    network = onnx.load(path)
    if spoil == "labels":
        (model_folder / "labels.json").write_text('["a", "b"]')
    elif spoil == "crop":
        preprocess = (model_folder / "preprocess.json").read_text()
        (model_folder / "preprocess.json").write_text(preprocess.replace("32", "64"))
    elif spoil == "name":
        network.graph.input[0].name = network.graph.node[0].input[0] = "picture"
    else:
        network.graph.input[0].type.tensor_type.elem_type = onnx.TensorProto.INT8
    onnx.save(network, path)
    rewrite(model_folder)
    with pytest.raises(ArchiveError, match="expected"):
        Predictor(open_model(model_folder))
