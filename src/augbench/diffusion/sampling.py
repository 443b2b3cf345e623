"""Generates a method's images: from planned rows to a shard and its image table, batch by batch."""

import functools
import hashlib
import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from augbench import images
from augbench.core import files, resume
from augbench.core.files import whole
from augbench.diffusion import candidates, clusters, selection
from augbench.diffusion.drawer import Drawer
from augbench.diffusion.pipeline_sampler import PipelineSampler
from augbench.diffusion.sampler import Sampler
from augbench.diffusion.sampling_plan import Share, batches, plan
from augbench.models import families
from augbench.models.backbones import AS_IT_COMES, Origin, origin_of
from augbench.study import classes, prompts
from augbench.study.methods import Method
from augbench.study.sections.base import Inputs
from augbench.study.sections.diffusion import Generate
from augbench.study.sections.models import Loading

EXTENSIONS = {"png": "png", "jpeg": "jpg", "webp": "webp"}  # of the formats of generated images
PROVENANCE = ("seed", "replaced", "cluster", "start_image")  # of a row, where it has such, that the image table keeps


class GenerateInputs(Inputs):
    """Paths: a pipeline, the safety checker (if there is one) and the class table; the training images and their
    latents, for methods that begin from them; clusters; fine-tunings whose candidates are compared (one folder for
    each learning rate), or else the chosen candidate and the selection among them; and of the images by which they were
    compared, shard and image table, for what goes on from them."""

    backbone: str
    classes: str
    safety: str | None = None
    train: str | None = None
    latents: str | None = None
    finetuned: list[str] = []
    chosen: str | None = None
    selection: str | None = None
    clusters: str | None = None
    screened: list[str] = []


@dataclass(frozen=True)
class Work:
    """Batches to generate with one model.

    ``key`` is (study seed, method); ``candidate`` names the model in the images' ids; ``fingerprint`` identifies model
    and settings, see :func:`augbench.core.resume.identity`; ``sampler`` loads the model and is called only if there is
    work. Images are stored as ``format``, a key of EXTENSIONS, of some ``quality``.
    """

    sampler: Callable[[], Drawer]
    batches: list[list[dict]]
    key: tuple
    candidate: str
    fingerprint: str
    format: str = "png"
    quality: int | None = None
    origin: Origin | None = None  # of the model


def generate(
    inputs: GenerateInputs,
    share: Share,
    method: Method,
    settings: Generate,
    shard: str | Path,
    table: str | Path,
    *,
    seed: int,
    loading: Loading = AS_IT_COMES,
    progress: Callable[[int, int, str], None] = lambda done, total, note: None,
) -> None:
    """Generate a job's share of a method's images into a WebDataset shard and its image table.

    Of a fine-tuned method's ``screened`` images, those of the chosen candidate are copied into the shard, and the first
    of each class of the others, which the report shows: the rest need not be kept.
    """
    compared = []
    if inputs.screened:
        compared = chosen_of(images.read(inputs.screened[-1]), files.read_json(inputs.selection)["candidate"])
    write_shard(work_of(inputs, share, method, settings, seed, loading), shard, table, progress, compared)
    forget(shard)


def chosen_of(screened: pd.DataFrame, candidate: str) -> list[dict]:
    """Rows of the images that are kept of those by which candidates were compared."""
    is_first = screened["image_id"].str.endswith(f"-{0:05d}")
    return screened[(screened["candidate"] == candidate) | is_first].to_dict("records")


def work_of(
    inputs: GenerateInputs, share: Share, method: Method, settings: Generate, seed: int, loading: Loading = AS_IT_COMES
) -> list[Work]:
    """A job's share of a method's images, for each model that draws them."""
    class_rows, key = classes.kept(inputs.classes), (seed, share.method)
    counts, already = share.counts(class_rows, settings.images_per_class)
    sizes = clusters.read_sizes(inputs.clusters, method.clusters) if inputs.clusters else None
    rows = plan(class_rows, counts, method, key, already=already, cluster_sizes=sizes)
    cut = batches(rows, settings.batch_size, share.part, share.parts)
    sampler = functools.cache(lambda: sampler_of(inputs, method, settings, loading))
    own = {row["class"] for batch in cut for row in batch} if method.per_class else None
    return [
        Work(
            lambda name=name, file=file: sampler().use(candidates.load(file, own) if file else {}, name),
            cut,
            key,
            name,
            fingerprint_of(inputs, method, settings, file, loading),
            settings.format,
            settings.quality,
            origin_of(inputs.backbone),
        )
        for name, file in _models(inputs).items()
    ]


def sampler_of(inputs: GenerateInputs, method: Method, settings: Generate, loading: Loading) -> Drawer:
    """The sampler of the backbone's family, for a method."""
    if not families.of_folder(inputs.backbone).has_own_sampler:
        return PipelineSampler(inputs.backbone, method, settings, inputs.safety, loading)
    train = images.read(inputs.train) if inputs.train else None
    return Sampler(inputs.backbone, method, settings, train, inputs.latents, inputs.safety, loading)


def _models(inputs: GenerateInputs) -> dict[str, Path | None]:
    """The models that draw images, by name: the candidates to compare, the chosen one, or the backbone as it is."""
    if inputs.chosen:
        return {files.read_json(inputs.selection)["candidate"]: Path(inputs.chosen)}
    folders = [Path(folder) for folder in inputs.finetuned]
    compared = selection.candidates(folders) if folders else []
    return {row["candidate"]: folders[0].parent / row["file"] for row in compared} or {"base": None}


def fingerprint_of(
    inputs: GenerateInputs,
    method: Method,
    settings: Generate,
    candidate: Path | None,
    loading: Loading = AS_IT_COMES,
) -> str:
    """What images are drawn from, as a digest: finished batches are used only by a job with the same."""
    facts = [method.model_dump(), prompts.digest(method.conditioning), settings.model_dump(), loading.model_dump()]
    data = [inputs.backbone, inputs.safety, inputs.train, inputs.latents, candidate]
    return resume.identity(__name__, facts, [path for path in data if path])


def write_shard(
    work: Sequence[Work],
    shard: str | Path,
    table: str | Path,
    progress: Callable[[int, int, str], None] = lambda done, total, note: None,
    copied: Sequence[Mapping] = (),
) -> None:
    """Generate images into a WebDataset shard and its image table; rows of another image table, ``copied``, go first.

    Each image starts from noise of its own seed, derived from the key, class, index and attempt. Finished
    batches are kept beside the shard until :func:`forget`; a killed job goes on after them. Encoding and writing run
    in the background.
    """
    shard = Path(shard)
    folder = _batches_of(shard)
    total, done, parts = sum(len(rows) for each in work for rows in each.batches), 0, []
    with ThreadPoolExecutor(1) as writer:
        writing = []
        for each in work:
            sampler = None
            for rows in each.batches:
                facts = [each.fingerprint, each.key, each.candidate, rows]
                file = folder / f"{hashlib.sha256(json.dumps(facts).encode()).hexdigest()}.tar"
                parts.append((each, file))
                if not file.exists():
                    sampler = sampler or each.sampler()
                    drawn = [dict(row) for row in rows]
                    writing.append(writer.submit(_write_batch, file, drawn, sampler.draw(drawn, each.key), each))
                    if len(writing) > 2:
                        writing.pop(0).result()  # an error must not wait for the end, nor may memory fill up
                done += len(rows)
                progress(done, total, "images")
        for batch in writing:
            batch.result()
    _join(copied, parts, shard, table)


def forget(shard: str | Path) -> None:
    """Remove the finished batches that :func:`write_shard` keeps beside a shard, once nothing can go wrong any more."""
    shutil.rmtree(_batches_of(Path(shard)), ignore_errors=True)


def _batches_of(shard: Path) -> Path:
    return shard.parent / f".{shard.name}.batches"


def _write_batch(path: Path, rows: Sequence[Mapping], pictures: Sequence, work: Work) -> None:
    extension = EXTENSIONS[work.format]
    with whole(path) as temporary, images.ShardWriter(temporary) as writer:
        for row, picture in zip(rows, pictures, strict=True):
            facts = {name: row[name] for name in ("class", "index", *PROVENANCE) if name in row}
            data = images.encode(picture, work.format, work.quality)
            members = {extension: data, "txt": row["prompt"], "json": facts}
            # Not the class's own name: WebDataset ends a sample's name at its first dot.
            writer.add(f"{row['number']:04d}-{row['index']:05d}", members, image=extension)


def _join(copied: Sequence[Mapping], parts: Sequence[tuple[Work, Path]], shard: Path, table: str | Path) -> None:
    """One shard, and its image table, from images of other shards and from those of the batches: what each is of, and
    its file."""
    with whole(shard) as temporary, images.ShardWriter(temporary) as writer:
        rows = _copy(copied, writer, shard)
        for work, file in parts:
            method, candidate, origin = work.key[1], work.candidate, work.origin
            for name, members in images.read_shard(file):
                of = images.picture_in(members)
                offset, length = writer.add(f"{candidate.replace('.', '_')}-{name}", members, image=of)
                facts = json.loads(members["json"])
                row = {
                    "image_id": f"{method}/{candidate}/{facts['class']}-{facts['index']:05d}",
                    "class": facts["class"],
                    "path": str(shard),
                    "offset": offset,
                    "length": length,
                    "prompt": members["txt"].decode(),
                    "candidate": candidate,
                    "model": origin and origin.title,
                    "licence": origin and origin.licence,
                }
                rows.append(row | {name: facts[name] for name in PROVENANCE if name in facts})
    images.write(table, images.table(rows))


def _copy(rows: Sequence[Mapping], writer: images.ShardWriter, shard: Path) -> list[dict]:
    """Copy the samples of images from the shard of an image table; returns their rows with their new places."""
    wanted = {int(row["offset"]): row for row in rows}
    copied = []
    for path in dict.fromkeys(row["path"] for row in rows):
        for name, sample in images.samples(path):
            of = images.picture_in(sample)
            if row := wanted.get(sample[of].offset):
                members = {extension: member.data for extension, member in sample.items()}
                offset, length = writer.add(name, members, image=of)
                copied.append(dict(row) | {"path": str(shard), "offset": offset, "length": length})
    return copied
