"""One extraction by many processes that share the folder of the cache.

- `shard`: which images are whose, and the run of a shard.
- `records`: to which extraction a shard belongs, and what it found, as `features.shards` keeps it beside the parts.
- `assembling`: put the parts of all shards together, as the end of a plain extraction does.
- `cluster`: shards as tasks of Ray's actors.
"""
