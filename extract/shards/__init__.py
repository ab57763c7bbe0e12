"""One extraction by many processes that share the folder of the cache.

- `shard`: which images are whose, and the run of a shard.
- `records`: what each shard leaves beside its parts, and to which extraction it belongs.
- `assembling`: put the parts of all shards together, as the end of a plain extraction does.
- `cluster`: shards as tasks of Ray's actors.
"""
