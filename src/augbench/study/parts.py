"""What a method trains of the diffusion model: a class for each value of ``trained``, and the table of them.

Nothing else in the program compares a part with a string: it asks the object. A new part is a class here and a row of
``PARTS``. What was trained is a *candidate*, a mapping from names to tensors: ``conditioning`` (classes x clusters,
tokens, width), ``pseudo_word`` (classes, width) and for a second encoder ``pseudo_word_2``, ``unet.NAME``, of adapters
``unet.NAME.lora_A.weight``, ``text_encoder.NAME.lora_A.weight`` and so on. Models, tokenizers and encoders are passed
in; torch is imported by those methods alone that need it, for the configuration is read without it.
"""

import logging
from collections.abc import Callable, Collection, Mapping, Sequence

from pydantic import Field

from augbench.core.seeds import derive, generator
from augbench.study import prompts, pseudo_words
from augbench.study.sections.base import Count, Positive, Section

# Encoders of prompts and their tokenizers, as diffusers calls them.
ENCODERS = {"text_encoder": "tokenizer", "text_encoder_2": "tokenizer_2", "text_encoder_3": "tokenizer_3"}


class Guide:
    """What guides the denoiser: prompts, read by the frozen text encoder, unless a class below says otherwise.

    For training images guides are what the trained model's ``forward`` takes, of any shape (n, ...), and :meth:`encode`
    turns them into encodings (n, tokens, width).
    """

    def of_images(self, table, classes: Sequence[Mapping], method, clusters: Sequence[int] | None, model) -> Callable:
        """A function (positions in the image table, *key of the draw) -> guides of these images.

        ``classes`` are rows of the class table, ``clusters`` the cluster of each image, ``model`` the trained one.
        """
        texts = _drawn_prompts(table, classes, method)
        return lambda positions, *key: model.encodings(texts(positions, *key))

    def encode(self, model, guides):
        """What the denoiser takes, from guides."""
        return guides

    def mark(self, rows: Sequence[dict], number: int, method, cluster_sizes: Sequence[int] | None) -> None:
        """Note in the rows that are planned for the class ``number`` what guides them beside the prompt.

        ``cluster_sizes`` holds the training images in each cluster of the class; None for a method without clusters.
        """

    def encodings(self, rows: Sequence[Mapping], encode: Callable, candidate: Mapping):
        """What the denoiser takes for planned rows, (n, tokens, width); ``encode`` encodes prompts (and words)."""
        return encode([row["prompt"] for row in rows])

    def refused(self, row: Mapping) -> tuple[str, str]:
        """Why the safety checker may refuse all draws for a row, and what helps."""
        return f"for the prompt {row['prompt']!r}", "change the prompt"


class TrainedReading(Guide):
    """Prompts, read by text encoders that are trained themselves: guides are token numbers."""

    def of_images(self, table, classes, method, clusters, model):
        texts = _drawn_prompts(table, classes, method)
        return lambda positions, *key: model.tokenize(texts(positions, *key))

    def encode(self, model, guides):
        return model.read(guides)


PROMPT = Guide()  # of methods none of whose trained parts guides
TRAINED_READING = TrainedReading()  # of those that train a text encoder beside


class Part:
    """What the program asks of a trained part; a class below says what differs."""

    name: str
    meaning: str  # for the reference of the configuration
    learning_rate: float  # of AdamW, for a batch of one
    learning_rate_of: str  # what it is the rate of, and its source: for the reference
    weight_decay = 0.0
    gpu_hours: float  # on a V100, of a fine-tuning on 10% ImageNet (paper, section 3.1)
    guides = False  # it is a Guide; a method has one such part at most
    keeps_prompts = True  # images are still generated from various prompts
    uses_pseudo_word = False  # its prompts, and no others, have a place {p}
    has_clusters = False  # it can learn something for each cluster of a class's training images
    is_adapter = False  # of any denoiser that takes adapters; what other parts do few families allow
    trains_denoiser = False  # of two such parts one would undo the other
    trains_encoder = False  # prompts are read anew in each step
    needs_full_precision = False  # the denoiser's own weights are trained: half precision would lose small steps
    settings: type[Section] | None = None  # a section of its own in `finetune`, under its name

    def candidate_bytes(self, classes: int, clusters: int, tokens: int, width: int, unet: float) -> float:
        """Bytes of a candidate, about: of so many classes, clusters of each, and tokens and width of a text encoding;
        ``unet``: bytes of the denoiser as it is saved."""
        return 0

    def attach(self, model, classes: Sequence[Mapping], method, settings: Section | None) -> list:
        """Put what is trained into a model whose weights are frozen, and return its parameters.

        ``model`` has ``unet`` (``denoiser_name`` is what diffusers calls it), ``encoders`` and ``tokenizers`` (by
        diffusers' names of the encoders), ``seed`` and ``encodings``, which encodes prompts; tensors that become its
        attributes move and are saved with it.
        ``model.rows(start, repeats)`` is a table of which each image trains one row, to be returned in place of a
        parameter.
        """
        raise NotImplementedError

    def tensors(self, model) -> dict:
        """What was trained, by the names it has in a candidate."""
        return {self.name: getattr(model, self.name)}

    def candidate(self, model) -> dict:
        """What a candidate holds of it, where that is not the same as what training goes on from."""
        return self.tensors(model)

    def restore(self, model, candidate: Mapping) -> None:
        """Take what was trained from :meth:`tensors`, to go on with its training."""
        import torch

        with torch.no_grad():
            for name, weights in self.tensors(model).items():
                weights.copy_(candidate[name])

    def load(self, pipeline, candidate: Mapping) -> None:
        """Take what was trained into a pipeline that samples, in place of another candidate's."""


class _LearnedGuide(Guide, Part):
    guides = True

    def refused(self, row):
        return "guided by what was learned", "write lower `finetune.learning_rates`"


class Conditioning(_LearnedGuide):
    """Text encodings of each class and cluster are learned; no prompt is read any more."""

    name = "conditioning"
    meaning = "one text encoding per class and cluster, starting from the first template"
    learning_rate = 2e-3
    learning_rate_of = "of learned conditionings (Imagic)"
    gpu_hours = 380
    keeps_prompts = False
    has_clusters = True

    def candidate_bytes(self, classes, clusters, tokens, width, unet):
        return 4 * classes * clusters * tokens * width

    def attach(self, model, classes, method, settings):
        """They start as each class's prompt, encoded (section 3.1)."""
        template = prompts.templates(method.conditioning)[0]
        start = model.encodings([prompts.fill(template, class_info) for class_info in classes])
        model.conditioning = model.rows(start, method.clusters)
        return [model.conditioning]

    def tensors(self, model):
        return {self.name: model.conditioning.whole()}

    def of_images(self, table, classes, method, clusters, model):
        import torch

        vectors = torch.tensor(_class_numbers(table, classes)) * method.clusters
        vectors = vectors + torch.tensor(list(clusters)) if clusters is not None else vectors
        return lambda positions, *key: vectors[positions]

    def encode(self, model, guides):
        return model.conditioning[guides]

    def mark(self, rows, number, method, cluster_sizes):
        sizes = cluster_sizes or [1]
        for row, cluster in zip(rows, prompts.allocate(len(rows), sizes), strict=True):
            row["vector"] = number * method.clusters + cluster
            which = ""
            if cluster_sizes:
                row["cluster"] = cluster
                which = f"cluster {cluster + 1} of {len(sizes)}, "
            row["prompt"] += f" ({which}learned)"

    def encodings(self, rows, encode, candidate):
        import torch

        return torch.stack([candidate[self.name][row["vector"]] for row in rows])


class PseudoWord(_LearnedGuide):
    """A token embedding of each class is learned, a word of prompts (textual inversion); where there are several text
    encoders, one in each."""

    name = "pseudo_word"
    meaning = "a token embedding per class"
    learning_rate = 5e-4
    learning_rate_of = "of learned token embeddings (textual inversion)"
    gpu_hours = 368
    uses_pseudo_word = True

    def candidate_bytes(self, classes, clusters, tokens, width, unet):
        return 4 * classes * width

    def attach(self, model, classes, method, settings):
        import torch

        for name, encoder in model.encoders.items():
            tokenizer = model.tokenizers[name]
            start = pseudo_words.initial(tokenizer, encoder, [row["lemmas"] for row in classes])
            words = torch.nn.Parameter(start)
            setattr(model, self._words_of(name), words)
            pseudo_words.attach(tokenizer, encoder, words)
        return list(self.tensors(model).values())

    def tensors(self, model):
        names = map(self._words_of, model.encoders)
        return {name: getattr(model, name) for name in names}

    def _words_of(self, encoder: str) -> str:
        """What the words of an encoder are called: those of the first bear the part's name."""
        return self.name + encoder.removeprefix("text_encoder")

    def of_images(self, table, classes, method, clusters, model):
        numbers, keys = _class_numbers(table, classes), list(table["class"])
        texts = _drawn_prompts(table, classes, method)

        def tokens(positions, *key):
            words = [(prompts.pseudo_word(keys[i]), numbers[i]) for i in map(int, positions)]
            return model.tokenize(texts(positions, *key), words)

        return tokens

    def encode(self, model, guides):
        return model.read(guides)

    def mark(self, rows, number, method, cluster_sizes):
        for row in rows:
            row["word"] = number

    def encodings(self, rows, encode, candidate):
        words = [(prompts.pseudo_word(row["class"]), row["word"]) for row in rows]
        return encode([row["prompt"] for row in rows], words)

    def load(self, pipeline, candidate):
        import torch

        for name, tokenizer in ENCODERS.items():
            if (words := candidate.get(self._words_of(name))) is not None:
                encoder = getattr(pipeline, name)
                # A parameter moves with its encoder, where that waits outside of the GPU.
                own = torch.nn.Parameter(words.to(encoder.device), requires_grad=False)
                pseudo_words.attach(getattr(pipeline, tokenizer), encoder, own)


class Unet(Part):
    """The denoiser itself."""

    name = "unet"
    meaning = "the denoiser"
    learning_rate = 5e-7
    learning_rate_of = "of the denoiser (Imagic)"
    weight_decay = 0.01
    gpu_hours = 720
    trains_denoiser = True
    needs_full_precision = True

    def candidate_bytes(self, classes, clusters, tokens, width, unet):
        return unet

    def attach(self, model, classes, method, settings):
        model.unet.requires_grad_(True)  # in full precision; autocast computes in half
        return list(model.unet.parameters())

    def tensors(self, model):
        return {f"{self.name}.{name}": value for name, value in model.unet.state_dict().items()}

    def restore(self, model, candidate):
        self._load(model.unet, candidate)

    def load(self, pipeline, candidate):
        self._load(pipeline.unet, candidate)

    def _load(self, unet, candidate):
        prefix = f"{self.name}."
        unet.load_state_dict(
            {name.removeprefix(prefix): value for name, value in candidate.items() if name.startswith(prefix)}
        )


class LoraSettings(Section):
    """A low-rank adapter (Hu et al. 2022) of the denoiser."""

    rank: Count = Field(16, description="of the change of each weight; 16 as in DataDream, 4 in diffusers' examples")
    alpha: Positive | None = Field(None, description="the change is scaled by alpha / rank; null: the rank")
    targets: list[str] = Field(
        ["to_k", "to_q", "to_v", "to_out.0", "add_k_proj", "add_v_proj"],
        min_length=1,
        description="layers that are adapted, by the ends of their names",
    )


class TextEncoderLoraSettings(LoraSettings):
    """A low-rank adapter of each text encoder."""

    targets: list[str] = Field(
        ["q_proj", "k_proj", "v_proj", "out_proj"],
        min_length=1,
        description="layers that are adapted, by the ends of their names",
    )


class _Adapter(Part):
    """Low-rank adapters of some of the model's networks. Candidates are adapters as diffusers saves them."""

    learning_rate = 1e-4
    weight_decay = 0.01
    gpu_hours = 380  # the pass through the denoiser, as for the others
    is_adapter = True

    def networks(self, model) -> dict:
        """What is adapted, by diffusers' names."""
        raise NotImplementedError

    def attach(self, model, classes, method, settings):
        """The change begins as none: the second factor is zero."""
        import torch
        from peft import LoraConfig, inject_adapter_in_model

        assert isinstance(settings, LoraSettings)
        scale, trained = settings.alpha or settings.rank, []
        with torch.random.fork_rng():
            torch.manual_seed(derive(model.seed, self.name))
            for network in self.networks(model).values():
                config = LoraConfig(
                    r=settings.rank, lora_alpha=scale, init_lora_weights="gaussian", target_modules=settings.targets
                )
                others = [weights for weights in network.parameters() if weights.requires_grad]
                inject_adapter_in_model(config, network)
                for weights in others:  # a pseudo-word, which peft freezes like all else
                    weights.requires_grad_(True)
                trained += _adapter_weights(network).values()
        model.adapter_scales[self] = scale / settings.rank
        for weights in trained:
            weights.data = weights.data.float()  # also where the network's are in half precision
        return trained

    def tensors(self, model):
        networks = self.networks(model).items()
        return {f"{name}.{key}": weights for name, net in networks for key, weights in _adapter_weights(net).items()}

    def candidate(self, model):
        """With alpha / rank in the second factor, for a file of an adapter says nothing of it."""
        tensors, scale = self.tensors(model), model.adapter_scales[self]
        return {name: value * scale if ".lora_B." in name else value for name, value in tensors.items()}


def _adapter_weights(network) -> dict:
    """An adapter's weights, by the names that diffusers gives them in files."""
    # CLIP's text model, which transformers has flattened: files keep the names that older programs know.
    is_flat = hasattr(network, "embeddings") and not hasattr(network, "text_model")
    prefix = "text_model." if is_flat else ""
    trained = {name: value for name, value in network.named_parameters() if ".lora_" in name}
    return {prefix + name.replace(".default.", "."): value for name, value in trained.items()}


def _weights_of(candidate: Mapping, name: str) -> dict:
    """What a candidate holds of the adapter of the network with this name, by the names inside the network."""
    prefix = f"{name}."
    own = {key.removeprefix(prefix): value for key, value in candidate.items() if key.startswith(prefix)}
    return {key: value for key, value in own.items() if ".lora_" in key}


class Lora(_Adapter):
    name = "lora"
    meaning = "a low-rank adapter of the denoiser"
    learning_rate_of = "of adapters of the denoiser (diffusers, DataDream)"
    trains_denoiser = True
    settings = LoraSettings
    SHARE = 0.004  # of the denoiser's numbers, at rank 16 in its attention

    def candidate_bytes(self, classes, clusters, tokens, width, unet):
        return self.SHARE * unet

    def networks(self, model):
        return {model.denoiser_name: model.unet}

    def load(self, pipeline, candidate):
        # It misses adapters of the encoders, which are loaded below, or not trained.
        logging.getLogger("diffusers.loaders.lora_base").setLevel(logging.ERROR)
        name = "unet" if hasattr(pipeline, "unet") else "transformer"
        getattr(pipeline, name).unload_lora()
        pipeline.load_lora_weights({f"{name}.{key}": value for key, value in _weights_of(candidate, name).items()})


class TextEncoderLora(_Adapter):
    name = "text_encoder_lora"
    meaning = "a low-rank adapter of each text encoder"
    learning_rate_of = "of adapters of text encoders (DataDream)"
    trains_encoder = True
    settings = TextEncoderLoraSettings
    NUMBERS = 32 * 4 * 2 * 16  # for each of the encoding's width: of 32 layers, at rank 16 in their attention

    def candidate_bytes(self, classes, clusters, tokens, width, unet):
        return 2 * self.NUMBERS * width

    def networks(self, model):
        return model.encoders

    def load(self, pipeline, candidate):
        """As diffusers would, whose way is closed where transformers wants a newer peft than there is."""
        import torch
        from peft import LoraConfig, inject_adapter_in_model

        for name in ENCODERS:
            weights, encoder = _weights_of(candidate, name), getattr(pipeline, name, None)
            if not weights:
                continue
            assert encoder is not None  # an adapter's name is that of the encoder it was trained in
            if not _adapter_weights(encoder):
                factors = [key for key in weights if key.endswith(".lora_A.weight")]
                rank = weights[factors[0]].shape[0]
                layers = [key.removesuffix(".lora_A.weight").removeprefix("text_model.") for key in factors]
                inject_adapter_in_model(LoraConfig(r=rank, lora_alpha=rank, target_modules=layers), encoder)
                encoder.requires_grad_(False)
            with torch.no_grad():
                for key, own in _adapter_weights(encoder).items():
                    own.copy_(weights[key])


PARTS: dict[str, Part] = {part.name: part for part in (Conditioning(), PseudoWord(), Unet(), Lora(), TextEncoderLora())}

# Parts that the paper trains together, where these take not as long as the longer of them.
TOGETHER = {frozenset({Conditioning.name, Unet.name}): 552}


def gpu_hours(trained: Collection[Part]) -> float:
    """GPU-hours on a V100 of fine-tuning these parts together on 10% ImageNet.

    The paper's where it trains them (section 3.1), else those of the part that takes longest: what costs is the pass
    through the denoiser, which they share.
    """
    together = TOGETHER.get(frozenset(part.name for part in trained))
    return together or max(part.gpu_hours for part in trained)


def _class_numbers(table, classes: Sequence[Mapping]) -> list[int]:
    """The number of each image's class."""
    number = {class_info["class"]: i for i, class_info in enumerate(classes)}
    return [number[key] for key in table["class"]]


def _drawn_prompts(table, classes: Sequence[Mapping], method) -> Callable:
    """A function (positions in the table, *key) -> a prompt for each image, of a template drawn by the key."""
    numbers, templates = _class_numbers(table, classes), prompts.templates(method.conditioning)

    def texts(positions, *key):
        drawn = generator(*key, "templates").integers(len(templates), size=len(positions))
        return [
            prompts.fill(templates[template], classes[numbers[position]])
            for template, position in zip(drawn, positions, strict=True)
        ]

    return texts
