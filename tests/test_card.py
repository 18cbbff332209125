import json

import pytest

from export import card, tflite
from keras_deartifact import engines, models
from training import runs, train
from training.configs import CONFIGS, as_dict


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    file = tmp_path_factory.mktemp("model") / "pico.tflite"
    file.write_bytes(tflite.convert(models.make_generator("shuffle_pico")))
    return file


def test_a_card_is_of_exactly_one_file(model, tmp_path):
    run = tmp_path / "run"
    runs.open_run(run, {"config": as_dict(CONFIGS["testing"])})
    train.make_model(CONFIGS["testing"]).generator.save(run / "generator.keras")
    (run / "progress.json").write_text('{"step": 7}')
    evaluation = tmp_path / "figures.json"
    digest = engines.digest(model)
    evaluation.write_text(json.dumps({"sha256": {"another": "0", "pico": digest}, "tables": [], "records": [1]}))
    made = card.make_card(run, model, evaluation, "what it is", "what it saw")
    assert made["sha256"] == digest
    assert made["steps"] == 7
    assert made["measured"] == {"sha256": {"another": "0", "pico": digest}, "tables": []}
    assert made["config"]["generator"] == CONFIGS["testing"].generator
    json.dumps(made)
    model_bytes = bytearray(model.read_bytes())
    model_bytes[-1] ^= 1
    other = tmp_path / "other.tflite"
    other.write_bytes(model_bytes)
    with pytest.raises(ValueError, match="another file"):
        card.make_card(run, other, evaluation, "what it is", "what it saw")
