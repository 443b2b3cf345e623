# The audit: duplicates between added images and what the classifiers are tested on or did not see.


rule audit:
    input:
        added=lambda w: expand(
            "results/{study}/augmentation/{method}/x{ratio}/split-{k}.parquet",
            ratio=ratios(w.study, w.method),
            k=range(1, study_of(w).runs + 1),
            allow_missing=True,
        ),
        test="results/{study}/dataset/test.parquet",
        validation="results/{study}/dataset/validation.parquet",
        unused="results/{study}/dataset/unused.parquet",
    output:
        candidates="results/{study}/audit/{method}/candidates.parquet",
        summary="results/{study}/audit/{method}/summary.json",
    log:
        "results/{study}/logs/audit/{method}.log",
    benchmark:
        "results/{study}/benchmarks/audit/{method}.tsv"
    conda:
        "../../envs/augbench.yaml"
    threads: 1
    resources:
        mem_mb=lambda w, attempt: costs.megabytes(4000, attempt),
        runtime=lambda w, input, attempt: costs.minutes(
            costs.hashing(rows(*input)), attempt
        ),
    params:
        code=code("audit"),
    script:
        "../scripts/audit.py"
