"""Extract one shard: its images into parts and a record, which `python -m extract assemble` puts together."""

from extract.extraction import CompiledBackbones, Watch, Work, make_pipeline
from extract.pipeline import Found
from extract.report import Report
from extract.shards.records import Shard, keep_found
from features.common.errors import InputError
from features.shards import ShardedRun
from features.store.cache import FeatureCache


def is_up_to_date(work: Work) -> bool:
    """Whether the cache files have the rows of all images of some work, as they are now, but for those rejected."""
    cache, recipes = FeatureCache(work.options.cache), {recipe.backbone: recipe for recipe in work.recipes()}
    for split in work.images:
        if not recipes.keys() <= set(cache.backbones(split.split)):
            return False
        ids = set(split.image_ids) - cache.rejected(split.split).keys()
        files = {name: cache.open(split.split, name) for name in recipes}
        if any(
            file.fingerprint != recipes[name].fingerprint or ids - file.index.keys() for name, file in files.items()
        ):
            return False
        try:
            cache.refuse_changed(split.split, list(recipes), split.image_ids, split.paths)
        except InputError:  # an image changed, or cannot be read
            return False
    return True


def extract_shard(work: Work, run: ShardedRun, shard: Shard, compiled: CompiledBackbones, watch: Watch) -> Report:
    """Extract the images of one shard into parts; at the end its record says that it is done.

    Args:
        work: what is extracted, all shards together.
        run: the extraction by shards of that work, which has begun.
        shard: the shard.
        compiled: keeps the compiled backbones.
        watch: who watches.

    Returns:
        What was done; `rejected` are the shard's images that could not be read.

    Raises:
        InputError: as of `extract`.
    """
    report = Report.of(work.backbones)
    found: list[Found] = []
    with work.held(shared=True):
        for split in shard.share(work.images):
            pipeline = make_pipeline(work, split, compiled, report, watch, f"{shard.number}-of-{shard.count}.")
            ended = pipeline.run()
            report.device = compiled.device if report.rows else ""
            if not ended:
                return report
            found.append(pipeline.found)
            report.rejected += pipeline.found.rejected
        keep_found(work.options.cache, run, shard, found)
    return report
