# The audit: duplicates between added images and what the classifiers are tested on or did not see.


rule list_references:
    input:
        lambda w: study_of(w).audit.references[w.set],
    output:
        "results/{study}/audit/references/{set}.parquet",
    log:
        "results/{study}/logs/audit/references-{set}.log",
    conda:
        "../../envs/augbench.yaml"
    resources:
        mem_mb=lambda w, attempt: costs.megabytes(1000, attempt),
        runtime=lambda w, attempt: costs.minutes(0, attempt),
    params:
        unreadable=setting("target.unreadable"),
    script:
        "../scripts/list_references.py"


rule hash_references:
    input:
        lambda w: reference_table(w.study, w.set),
    output:
        "results/{study}/audit/hashes/{set}.parquet",
    log:
        "results/{study}/logs/audit/hashes-{set}.log",
    benchmark:
        "results/{study}/benchmarks/audit/hashes-{set}.tsv"
    conda:
        "../../envs/augbench.yaml"
    threads: lambda w: cores(w.study)
    resources:
        mem_mb=lambda w, attempt: costs.megabytes(2000, attempt),
        runtime=lambda w, input, attempt: costs.minutes(
            costs.hashing(rows(*input)), attempt
        ),
    script:
        "../scripts/hash_images.py"


use rule hash_references as hash_added with:
    input:
        added_tables,
    output:
        "results/{study}/audit/{method}/hashes.parquet",
    log:
        "results/{study}/logs/audit/{method}-hashes.log",
    benchmark:
        "results/{study}/benchmarks/audit/{method}-hashes.tsv"


rule embed_references:
    input:
        tables=lambda w: [reference_table(w.study, w.set)],
        clip=lambda w: (
            clip_folder(w.study) if study_of(w).audit.detector == "clip" else []
        ),
    output:
        "results/{study}/audit/vectors/{set}.parquet",
    log:
        "results/{study}/logs/audit/vectors-{set}.log",
    benchmark:
        "results/{study}/benchmarks/audit/vectors-{set}.tsv"
    conda:
        "../../envs/augbench.yaml"
    threads: 1
    resources:
        mem_mb=lambda w, attempt: costs.megabytes(6000, attempt),
        runtime=lambda w, input, attempt: costs.minutes(
            costs.embedding(rows(*input.tables)), attempt
        ),
        gpu=1,
    params:
        detector=setting("audit.detector"),
        image_size=setting("audit.image_size"),
        clip=lambda w: (
            clip_model(w.study) if study_of(w).audit.detector == "clip" else None
        ),
    script:
        "../scripts/embed_images.py"


use rule embed_references as embed_added with:
    input:
        tables=added_tables,
        clip=lambda w: (
            clip_folder(w.study) if study_of(w).audit.detector == "clip" else []
        ),
    output:
        "results/{study}/audit/{method}/vectors.parquet",
    log:
        "results/{study}/logs/audit/{method}-vectors.log",
    benchmark:
        "results/{study}/benchmarks/audit/{method}-vectors.tsv"


rule audit:
    input:
        added=added_tables,
        added_hashes="results/{study}/audit/{method}/hashes.parquet",
        added_vectors=lambda w: (
            rules.embed_added.output if study_of(w).audit.detector else []
        ),
        references=lambda w: [
            reference_table(w.study, name) for name in references(w.study, w.method)
        ],
        hashes=seen_sets("hashes"),
        vectors=seen_sets("vectors"),
    output:
        candidates="results/{study}/audit/{method}/candidates.parquet",
        summary="results/{study}/audit/{method}/summary.json",
    log:
        "results/{study}/logs/audit/{method}.log",
    benchmark:
        "results/{study}/benchmarks/audit/{method}.tsv"
    conda:
        "../../envs/augbench.yaml"
    threads: lambda w: cores(w.study)
    resources:
        mem_mb=lambda w, attempt: costs.megabytes(4000, attempt),
        runtime=lambda w, attempt: costs.minutes(0, attempt, least=60),
    params:
        references=lambda w: references(w.study, w.method),
        ratios=lambda w: ratios(w.study, w.method),
        threshold=lambda w: (
            study_of(w).audit.threshold if study_of(w).audit.detector else None
        ),
    script:
        "../scripts/audit.py"


rule review:
    input:
        candidates="results/{study}/audit/{method}/candidates.parquet",
    output:
        "results/{study}/audit/{method}/review.html",
    log:
        "results/{study}/logs/audit/{method}-review.log",
    localrule: True
    conda:
        "../../envs/augbench.yaml"
    resources:
        mem_mb=lambda w, attempt: costs.megabytes(1000, attempt),
        runtime=lambda w, attempt: costs.minutes(0, attempt),
    params:
        title=lambda w: METHODS[w.method].title,
        inspected=setting("audit.inspected"),
        in_full=setting("audit.in_full"),
        seed=setting("seed"),
    script:
        "../scripts/review.py"
