"""Settings of stage `infer`."""

from typing import Literal, Self

from pydantic import BaseModel, Field, model_validator

from pipelines.media.images import Limits

HeadKind = Literal["linear", "nearest", "trees", "network", "prototypes"]

MissingLoss = Literal[
    "an",
    "wan",
    "ls",
    "asl",
    "hill",
    "splc",
    "epr",
    "role",
    "em",
    "em-apl",
    "ll-r",
    "ll-ct",
    "ll-cp",
    "pu",
    "pu-mix",
    "multi-focal",
    "comic",
    "frequency",
]
"""Names of `labelops.nn.cell_losses.LOSSES`, which are not imported to read settings."""

TOLD = ("epr", "role")
"""Losses that know how many classes an item has on average."""


class Config(BaseModel, frozen=True, extra="forbid"):
    """Settings of stage `infer`."""

    use: Literal[
        "auto", "opinions", "table", "pred_probs", "topk_probs", "features", "image", "text"
    ] = Field(
        default="auto",
        description="What to predict from; auto: the first of opinions (the columns that "
        "data.opinions names), table (those that data.features names), pred_probs, topk_probs, "
        "features, image and text that the data has.",
    )
    folds: int = Field(
        default=5,
        ge=2,
        le=127,
        description="Cross-validation folds; each item is predicted by a model that was not "
        "trained on it.",
    )
    train: Literal["heads", "scratch", "finetune"] = Field(
        default="heads",
        description="heads: linear classifiers on a fixed embedding. scratch, finetune: train the "
        "torchvision model named by 'embedder' in each fold, from random weights or from "
        "'weights'.",
    )
    heads: tuple[HeadKind, ...] | None = Field(
        default=None,
        min_length=1,
        description="Classifiers on the embedding or the features, whose opinions are combined: "
        "linear (softmax regression), nearest (votes of the 15 nearest of up to 20,000 items), "
        "trees (gradient-boosted), network (one hidden layer, averaged over its training), "
        "prototypes (cosines to class means). Absent: linear, nearest and, but for tables, "
        "prototypes up to 1,024 classes, and trees where features × classes are at most 4096. "
        "For lists of labels only linear, nearest and trees, and network where some classes are "
        "unknown, by default where unknown ones count as negative; for candidates linear, nearest "
        "and network, all of them by default.",
    )
    unknown: Literal["ignore", "negative"] | None = Field(
        default=None,
        description="What heads make of a class in lists that is neither given nor ruled out. "
        "ignore: nothing. negative: it is absent, but for the network, whose loss (missing_loss) "
        "expects present ones among them; probabilities are then those of being given. Absent: "
        "negative for classes that fewer than a tenth of the items without them rule out.",
    )
    missing_loss: MissingLoss = Field(
        default="ll-r",
        description="By which loss the network learns from lists with unknown classes, some of "
        "them present. ll-r: unknown ones are absent, but those with the largest losses do not "
        "count, more of them with every epoch; an: all are absent; the others: see "
        "labelops.partial.cell_losses.",
    )
    missing_hidden: int = Field(
        default=256, ge=0, le=4096, description="Hidden units of that network; 0: it is linear."
    )
    labels_per_item: float | None = Field(
        default=None,
        gt=0.0,
        description="Classes that an item truly has on average, for missing_loss epr and role. "
        "Absent: as many as are given.",
    )
    candidates: Literal["likeliest", "rc", "rc_balanced", "cc"] = Field(
        default="likeliest",
        description="How heads learn from candidate sets. likeliest: by rc or rc_balanced, "
        "whichever makes whole sets likelier, out of fold. rc: candidates weigh as they are found "
        "probable. rc_balanced: and classes about as often as sets alone speak for them, where "
        "rare classes stand mostly beside the same frequent one. cc: likelihood of the whole set, "
        "which goes wrong where classes are candidates beside others more often than by chance.",
    )
    embedder: str = Field(
        default="pixels",
        description="pixels (built in, no weights), the name of a torchvision classifier, or the "
        "path of a torch.export program (.pt2).",
    )
    weights: str | None = Field(
        default=None,
        description="File with the weights of a torchvision model; or default: those that "
        "torchvision recommends, which it fetches once.",
    )
    image_size: int | None = Field(
        default=None,
        ge=16,
        le=2048,
        description="Pictures are cropped to a square and scaled to this side in pixels. Absent: "
        "32 for pixels and for training from scratch, else 224.",
    )
    mean: tuple[float, float, float] = Field(
        default=(0.485, 0.456, 0.406),
        description="Mean subtracted from each channel, after scaling to [0, 1].",
    )
    std: tuple[float, float, float] = Field(
        default=(0.229, 0.224, 0.225),
        description="Each channel is then divided by this standard deviation; not used by pixels.",
    )
    max_image_bytes: int = Field(
        default=64 * 2**20,
        ge=1,
        description="Bytes; larger image files are quarantined without decoding.",
    )
    max_image_pixels: int = Field(
        default=64_000_000, ge=1, description="Larger pictures are quarantined without decoding."
    )
    batch_rows: int = Field(default=64, ge=1, le=65_536, description="Batch size.")
    device: str = Field(
        default="auto",
        pattern=r"^(auto|cpu|cuda(:\d+)?)$",
        description="auto: a GPU if available.",
    )
    l2: float | None = Field(
        default=None,
        ge=0.0,
        description="L2 penalty of the heads. Absent: the one that predicts best out of sample.",
    )
    max_iter: int = Field(default=300, ge=1, description="Maximum iterations to fit the heads.")
    epochs: int = Field(default=20, ge=1, description="Training epochs of networks.")
    optimizer: Literal["sgd", "adamw"] = Field(default="sgd", description="Optimizer of networks.")
    learning_rate: float | None = Field(
        default=None,
        gt=0.0,
        description="Initial learning rate, with cosine decay to 0. Absent: 0.05 for sgd and "
        "0.001 for adamw, a fifth of it for finetune.",
    )
    weight_decay: float = Field(default=5e-4, ge=0.0, description="Weight decay of networks.")
    flip: bool = Field(
        default=True, description="Flip pictures horizontally at random in training."
    )
    crop: int = Field(
        default=0,
        ge=0,
        description="Shift pictures at random by up to this many pixels in training.",
    )
    sum_tolerance: float = Field(
        default=1e-3,
        ge=0.0,
        lt=1.0,
        description="How far the sum of given probabilities may be from 1.",
    )
    calibration_items: int = Field(
        default=50_000,
        ge=1,
        description="Calibration is measured on about this many items at most.",
    )
    bins: int = Field(default=15, ge=1, le=1000, description="Bins for calibration errors.")

    @model_validator(mode="after")
    def _check_heads(self) -> Self:
        if self.heads is not None and len(set(self.heads)) < len(self.heads):
            raise ValueError(f"heads must be different, got {list(self.heads)}")
        if self.heads is not None and self.train != "heads":
            raise ValueError(
                f"heads are not used with train = {self.train!r}; leave them out, or set train = "
                "'heads'"
            )
        return self

    @model_validator(mode="after")
    def _check_told(self) -> Self:
        if self.labels_per_item is not None and self.missing_loss not in TOLD:
            raise ValueError(
                f"labels_per_item is used by missing_loss = {' and '.join(TOLD)} only, got "
                f"{self.missing_loss!r}; leave it out"
            )
        return self

    @model_validator(mode="after")
    def _check_model(self) -> Self:
        named = self.embedder != "pixels" and not self.is_program
        if self.train != "heads" and not named:
            raise ValueError(
                f"train = {self.train!r} needs the name of a torchvision classifier as embedder, "
                f"got {self.embedder!r}, for example embedder = 'resnet18'"
            )
        needed = named and self.train != "scratch"
        if needed and self.weights is None:
            raise ValueError(
                f"embedder = {self.embedder!r} needs weights, the path of a safetensors file or a "
                "torch state dict, or 'default' to let torchvision fetch them; or train = 'scratch'"
            )
        if self.weights is not None and not needed:
            raise ValueError(
                f"weights are not used with embedder = {self.embedder!r} and train = "
                f"{self.train!r}; leave them out"
            )
        if min(self.std) <= 0:
            raise ValueError(f"std must be positive, got {self.std}")
        return self

    @property
    def is_program(self) -> bool:
        """Whether the embedder is a torch.export program."""
        return self.embedder.endswith(".pt2")

    @property
    def side(self) -> int:
        """Side of the square that the model sees, in pixels."""
        if self.image_size is not None:
            return self.image_size
        return 32 if self.embedder == "pixels" or self.train == "scratch" else 224

    @property
    def rate(self) -> float:
        """Learning rate of training."""
        if self.learning_rate is not None:
            return self.learning_rate
        base = {"sgd": 0.05, "adamw": 0.001}[self.optimizer]
        return base if self.train == "scratch" else base / 5

    @property
    def limits(self) -> Limits:
        """What is refused before it is decoded."""
        return Limits(max_bytes=self.max_image_bytes, max_pixels=self.max_image_pixels)
