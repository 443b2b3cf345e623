# Resampling: five sets with the target's count per class.
SPLITS = range(1, max(study.runs for study in STUDIES.values()) + 1)


rule resample:
    input:
        classes=rules.dataset.output.classes,
        images=lambda w: image_tables(w.study, w.method, w.ratio),
        selection=lambda w: rules.select.output[0] if trained(w.method) else [],
    output:
        expand(
            "results/{{study}}/augmentation/{{method}}/x{{ratio}}/split-{k}.parquet",
            k=SPLITS,
        ),
    log:
        "results/{study}/logs/resample/{method}-x{ratio}.log",
    benchmark:
        "results/{study}/benchmarks/resample/{method}-x{ratio}.tsv"
    localrule: True
    conda:
        "../../envs/augbench.yaml"
    resources:
        mem_mb=lambda w, attempt: costs.megabytes(2000, attempt),
        runtime=lambda w, attempt: costs.minutes(0, attempt, least=30),
    params:
        seed=setting("seed"),
        start=lambda w: METHODS[w.method].start,
        code=code("resampling"),
    script:
        "../scripts/resample.py"
