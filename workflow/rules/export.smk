# Export: an augmented data set for other software, made only when it is asked for.


rule export:
    input:
        train="results/{study}/dataset/train.parquet",
        classes=rules.dataset.output.classes,
        added=lambda w: (
            []
            if METHODS[w.method].start == "none"
            else [
                f"results/{w.study}/augmentation/{w.method}/x{ratios(w.study, w.method)[0]}/split-1.parquet"
            ]
        ),
    output:
        directory("results/{study}/export/{method}/{form}"),
    log:
        "results/{study}/logs/export/{method}-{form}.log",
    benchmark:
        "results/{study}/benchmarks/export/{method}-{form}.tsv"
    wildcard_constraints:
        form="|".join(export.FORMATS),
    conda:
        "../../envs/augbench.yaml"
    threads: 1
    resources:
        mem_mb=lambda w, attempt: costs.megabytes(2000, attempt),
        runtime=lambda w, input, attempt: costs.minutes(
            costs.hashing(rows(input.train, *input.added)), attempt
        ),
    params:
        about=lambda w: {
            "study": w.study,
            "method": w.method,
            "title": METHODS[w.method].title,
            "ratio": ratios(w.study, w.method)[0],
        },
        code=code("export"),
    script:
        "../scripts/export.py"
