"""Exported models against the libraries that they come from, and runs on what was exported."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import save_file

import pipelines.run
from labelops.nn import architecture
from labelops.nn.transform import IMAGENET_MEAN, IMAGENET_STD
from pipelines.errors import RecipeError
from pipelines.inference.encode import encode, open_encoder
from pipelines.inference.settings import Config
from pipelines.media.exporting import export_model
from pipelines.media.programs import load_program
from pipelines.recipe import load_recipe
from tests.datasets import write_shards

SIDE = 32
TEXTS = ["a cat sat", "the dog", "", "猫 cat " * 300, "unseen words only", "a"]
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "a", "the", "cat", "dog", "sat"]


def pictures(n: int) -> torch.Tensor:
    return torch.rand(n, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))


def normalised(x: torch.Tensor, mean: object, std: object) -> torch.Tensor:
    return (x - torch.tensor(mean).view(1, 3, 1, 1)) / torch.tensor(std).view(1, 3, 1, 1)


def said_by(path: Path, x: torch.Tensor) -> torch.Tensor:
    """Return what a program says of pictures in [0, 1], as a run asks it."""
    program = load_program(str(path), torch.device("cpu"))
    with torch.inference_mode():
        said: torch.Tensor = program(normalised(x, IMAGENET_MEAN, IMAGENET_STD))
    return said


@pytest.mark.parametrize("n", [1, 5])
def test_torchvision__is_exported_without_its_head(tmp_path: Path, n: int) -> None:
    torch.manual_seed(1)
    model = architecture.build("resnet18", n_classes=7)
    save_file(model.state_dict(), tmp_path / "w.safetensors")
    out = tmp_path / "net.pt2"
    said = export_model("resnet18", str(out), weights=str(tmp_path / "w.safetensors"), side=SIDE)
    assert said.splitlines() == [
        f"{out}: from 32 × 32 pixels to 512 features",
        f"Use it with --set infer.embedder={out} --set infer.image_size=32",
    ]
    architecture.remove_head(model, "resnet18")
    x = pictures(n)
    with torch.inference_mode():
        expected = model.eval()(normalised(x, IMAGENET_MEAN, IMAGENET_STD))
    torch.testing.assert_close(said_by(out, x), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["test_resnet", "test_vit"])
def test_timm__is_exported_with_the_mean_that_it_was_trained_with(
    tmp_path: Path, name: str
) -> None:
    timm = pytest.importorskip("timm")
    torch.manual_seed(2)
    model = timm.create_model(name, pretrained=False, num_classes=3)
    path = tmp_path / "w.safetensors"
    save_file(model.state_dict(), path)
    out = tmp_path / "net.pt2"
    side = int(model.pretrained_cfg["input_size"][1])
    said = export_model(f"timm:{name}", str(out), weights=str(path))
    assert f"from {side} × {side} pixels" in said
    x = torch.rand(3, 3, side, side, generator=torch.Generator().manual_seed(0))
    own = normalised(x, model.pretrained_cfg["mean"], model.pretrained_cfg["std"])
    model.reset_classifier(0)
    with torch.inference_mode():
        expected = model.eval()(own)
    torch.testing.assert_close(said_by(out, x), expected, rtol=1e-4, atol=1e-4)


def vision_folder(folder: Path) -> Path:
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(3)
    config = transformers.ViTConfig(
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        image_size=SIDE,
        patch_size=8,
    )
    transformers.ViTModel(config).save_pretrained(folder)
    processor = transformers.ViTImageProcessor(image_mean=[0.5] * 3, image_std=[0.5] * 3)
    processor.save_pretrained(folder)
    return folder


def test_vision_model_of_hugging_face__is_exported_from_its_folder(tmp_path: Path) -> None:
    folder, out = vision_folder(tmp_path / "vit"), tmp_path / "vit.pt2"
    export_model(f"hf:{folder}", str(out))
    import transformers

    model = transformers.AutoModel.from_pretrained(folder).eval()
    x = pictures(3)
    with torch.inference_mode():
        expected = model(pixel_values=normalised(x, [0.5] * 3, [0.5] * 3)).pooler_output
    torch.testing.assert_close(said_by(out, x), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("processor", "mean", "std"),
    [(None, IMAGENET_MEAN, IMAGENET_STD), ({"do_normalize": False}, [0.0] * 3, [1.0] * 3)],
    ids=["absent", "without mean"],
)
def test_vision_model__takes_pictures_as_its_folder_says(
    tmp_path: Path, processor: dict[str, bool] | None, mean: object, std: object
) -> None:
    folder, out = vision_folder(tmp_path / "vit"), tmp_path / "vit.pt2"
    import transformers

    (folder / "preprocessor_config.json").unlink()
    if processor is not None:
        transformers.ViTImageProcessor(**processor).save_pretrained(folder)
    export_model(f"hf:{folder}", str(out))
    model = transformers.AutoModel.from_pretrained(folder).eval()
    x = pictures(2)
    with torch.inference_mode():
        expected = model(pixel_values=normalised(x, mean, std)).pooler_output
    torch.testing.assert_close(said_by(out, x), expected, rtol=1e-4, atol=1e-5)


def text_folder(folder: Path) -> Path:
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(4)
    config = transformers.BertConfig(
        vocab_size=len(WORDS),
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=40,
    )
    transformers.BertModel(config).save_pretrained(folder)
    (folder / "vocab.txt").write_text("\n".join(WORDS))
    tokenizer = transformers.BertTokenizerFast(vocab=str(folder / "vocab.txt"))
    tokenizer.save_pretrained(folder)
    return folder


def test_language_model__says_the_mean_over_tokens_of_each_text_alone(tmp_path: Path) -> None:
    """Against transformers, text by text, without any padding."""
    folder, out = text_folder(tmp_path / "bert"), tmp_path / "bert.pt2"
    assert "from texts to 16 features" in export_model(f"hf:{folder}", str(out))
    tokenizer, forward = open_encoder(Config(embedder=str(out)))
    said = encode(TEXTS, tokenizer, forward)
    import transformers

    model = transformers.AutoModel.from_pretrained(folder).eval()
    own = transformers.AutoTokenizer.from_pretrained(folder)
    for text, ours in zip(TEXTS, said, strict=True):
        tokens = own(text, return_tensors="pt", truncation=True, max_length=39)
        with torch.inference_mode():
            mean = model(**tokens).last_hidden_state[0].mean(0)
        np.testing.assert_allclose(ours, mean / mean.norm(), rtol=1e-3, atol=1e-5)
    # Whatever texts are beside it, to the last bit.
    for i, text in enumerate(TEXTS):
        assert np.array_equal(encode([text], tokenizer, forward)[0], said[i])


def test_run__embeds_texts_with_an_exported_model(tmp_path: Path) -> None:
    out = tmp_path / "bert.pt2"
    export_model(f"hf:{text_folder(tmp_path / 'bert')}", str(out))
    rng = np.random.default_rng(0)
    given = rng.integers(0, 2, 120)
    texts = [f"{'the cat' if k else 'a dog'} sat {'a ' * int(rng.integers(9))}" for k in given]
    table = pa.table({"text": [*texts[:-1], None], "label": given})
    runs = []
    for shards in ([120], [50, 70]):
        data = write_shards(tmp_path / f"data{len(shards)}", table, shards)
        recipe = load_recipe("audit", [f"infer.embedder={out}"])
        folder = tmp_path / f"out{len(shards)}"
        pipelines.run.run(recipe, data=str(data), out=str(folder))
        files = sorted((folder / "infer").glob("part-*.parquet"))
        runs.append(pa.concat_tables([pq.read_table(file) for file in files]))
    one, two = runs
    assert one.num_rows == 119
    assert one.schema.field("embedding").type.list_size == 16
    assert one.drop_columns(["item_id"]).num_rows == two.num_rows
    assert (np.array(one["pred_probs"].to_pylist()).argmax(axis=1) == given[:119]).mean() > 0.95


def test_program_of_pictures__is_refused_for_texts(tmp_path: Path) -> None:
    torch.manual_seed(1)
    save_file(architecture.build("resnet18", n_classes=2).state_dict(), tmp_path / "w.safetensors")
    out = str(tmp_path / "net.pt2")
    export_model("resnet18", out, weights=str(tmp_path / "w.safetensors"), side=SIDE)
    with pytest.raises(RecipeError, match="a program of texts, with its tokenizer, was expected"):
        open_encoder(Config(embedder=out))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("resnet19", "did you mean resnet18"),
        ("timm:resnet18x", "a model of timm .* was expected, got 'resnet18x'"),
        ("hf:/nowhere/at/all", "was expected to be opened, got: .*name a folder"),
    ],
)
def test_models_that_are_not_there__are_named(tmp_path: Path, name: str, message: str) -> None:
    if name.startswith("timm"):
        pytest.importorskip("timm")
    if name.startswith("hf"):
        pytest.importorskip("transformers")
    with pytest.raises(RecipeError, match=message):
        export_model(name, str(tmp_path / "net.pt2"))
    assert not list(tmp_path.iterdir())


def test_file_that_is_there__is_not_written_over(tmp_path: Path) -> None:
    (tmp_path / "net.pt2").write_bytes(b"mine")
    with pytest.raises(RecipeError, match="a path for a new file"):
        export_model("resnet18", str(tmp_path / "net.pt2"))
    assert (tmp_path / "net.pt2").read_bytes() == b"mine"
