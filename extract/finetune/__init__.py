"""Fine-tune a backbone on the labels, once without each fold of the training rows and once on all of them.

Reading order: blocks, training, backbones, run.
"""
