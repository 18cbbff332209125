import json
import shutil

from keras_deartifact import engines


def test_a_model_is_its_file_and_what_runs_it(tmp_path):
    path = engines.pretrained_path("shuffle_nano")
    copy = tmp_path / "other.tflite"
    shutil.copy(path, copy)
    identity = engines.identity(engines.load(path))
    assert identity == engines.identity(engines.load(copy, threads=1))
    assert identity["model"] == engines.digest(path)
    assert identity["engine"].startswith("litert ")
    other = engines.identity(engines.load("shuffle_nano_perceptual", "litert"))
    assert other["model"] != identity["model"] and other["engine"] == identity["engine"]
    assert engines.identity(engines.load_predictor())["model"] == engines.digest(engines.predictor_path())


def test_an_ensemble_is_its_members_too(tmp_path):
    for name in ("a", "b"):
        folder = tmp_path / name
        folder.mkdir()
        model = "shuffle_nano" if name == "a" else "shuffle_nano_perceptual"
        shutil.copy(engines.pretrained_path(model), folder / "one.tflite")
        (folder / "ensemble.json").write_text(json.dumps([{"log2_step": 4.0, "model": "one.tflite"}]))
    identities = [engines.identity(engines.load(tmp_path / name)) for name in ("a", "b")]
    assert identities[0]["model"] != identities[1]["model"]
    assert identities[0]["engine"].startswith("ensemble")


def test_any_function_goes_by_its_name():
    def restorer(frames, quantiser_map=None):
        return frames

    assert engines.identity(restorer)["model"].endswith("restorer")
    assert engines.identity(restorer)["engine"] is None
