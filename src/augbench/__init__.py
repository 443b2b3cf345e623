"""augbench: retrieve or generate? Data augmentation methods for image classifiers, compared like with like."""
