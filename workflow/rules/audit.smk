# The audit: duplicates between added images and what the classifiers are tested on or did not see.
rule list_references:
    input:
        lambda w: ancient(study_of(w).audit.references[w.set]),
    output:
        ANY.listed_references("{set}"),
    log:
        "results/{study}/logs/audit/references-{set}.log",
    conda:
        "../../envs/augbench.yaml"
    resources:
        **needs("list_references"),
    params:
        unreadable=setting("target.unreadable"),
        data=lambda w: DATA[w.study].references[w.set] if workflow.is_main_process else None,
    message:
        "{wildcards.study}: list the images of {wildcards.set}, with which added images are compared"
    script:
        "../scripts/list_references.py"


rule hash_references:
    input:
        lambda w: files_of(w).reference_table(w.set),
    output:
        ANY.detected_references("hashes", "{set}"),
    log:
        "results/{study}/logs/audit/hashes-{set}.log",
    benchmark:
        "results/{study}/benchmarks/audit/hashes-{set}.tsv"
    conda:
        "../../envs/augbench.yaml"
    threads: lambda w: costs_of(w).cores
    resources:
        **needs("hash_references"),
    message:
        "{wildcards.study}: hash the images of {wildcards.set}"
    script:
        "../scripts/hash_images.py"


use rule hash_references as hash_added with:
    input:
        lambda w: files_of(w).added_sets(w.method),
    output:
        ANY.audit("{method}", "hashes.parquet"),
    log:
        "results/{study}/logs/audit/{method}-hashes.log",
    benchmark:
        "results/{study}/benchmarks/audit/{method}-hashes.tsv"
    resources:
        **needs("hash_added"),
    message:
        "{wildcards.study}: hash the images that {wildcards.method} adds"


rule embed_references:
    input:
        tables=lambda w: [files_of(w).reference_table(w.set)],
        clip=lambda w: files_of(w).clip if files_of(w).embedder == "clip" else [],
    output:
        ANY.detected_references("vectors", "{set}"),
    log:
        "results/{study}/logs/audit/vectors-{set}.log",
    benchmark:
        "results/{study}/benchmarks/audit/vectors-{set}.tsv"
    conda:
        "../../envs/augbench.yaml"
    threads: 1
    resources:
        **needs("embed_references"),
        gpu=1,
    params:
        detector=lambda w: files_of(w).embedder,
        image_size=setting("audit.image_size"),
        clip=lambda w: files_of(w).clip_name if files_of(w).embedder == "clip" else None,
        data=data_in("detector"),
    message:
        "{wildcards.study}: embed the images of {wildcards.set} for the second detector"
    script:
        "../scripts/embed_images.py"


use rule embed_references as embed_added with:
    input:
        tables=lambda w: files_of(w).added_sets(w.method),
        clip=lambda w: files_of(w).clip if study_of(w).audit.detector == "clip" else [],
    output:
        ANY.audit("{method}", "vectors.parquet"),
    log:
        "results/{study}/logs/audit/{method}-vectors.log",
    benchmark:
        "results/{study}/benchmarks/audit/{method}-vectors.tsv"
    resources:
        **needs("embed_added"),
        gpu=1,
    message:
        "{wildcards.study}: embed the images that {wildcards.method} adds for the second detector"


rule audit:
    input:
        added=lambda w: files_of(w).added_sets(w.method),
        added_hashes=rules.hash_added.output[0],
        added_vectors=lambda w: rules.embed_added.output if study_of(w).audit.detector else [],
        references=lambda w: files_of(w).reference_tables(w.method),
        hashes=lambda w: files_of(w).reference_hashes(w.method),
        vectors=lambda w: files_of(w).reference_vectors(w.method),
    output:
        candidates=ANY.audit("{method}", "candidates.parquet"),
        summary=ANY.audit("{method}", "summary.json"),
    log:
        "results/{study}/logs/audit/{method}.log",
    benchmark:
        "results/{study}/benchmarks/audit/{method}.tsv"
    conda:
        "../../envs/augbench.yaml"
    threads: lambda w: costs_of(w).cores
    resources:
        **needs("audit"),
    params:
        references=lambda w: files_of(w).reference_names(w.method),
        ratios=lambda w: files_of(w).ratios(w.method),
        threshold=lambda w: study_of(w).audit.threshold if study_of(w).audit.detector else None,
    message:
        "{wildcards.study}: look for duplicates among the images that {wildcards.method} adds"
    script:
        "../scripts/audit.py"


rule review:
    input:
        candidates=rules.audit.output.candidates,
    output:
        ANY.audit("{method}", "review.html"),
    log:
        "results/{study}/logs/audit/{method}-review.log",
    localrule: True
    conda:
        "../../envs/augbench.yaml"
    resources:
        **needs("review"),
    params:
        title=lambda w: METHODS[w.method].title,
        inspected=setting("audit.inspected"),
        in_full=setting("judged_in_full"),
        seed=setting("seed"),
    message:
        "{wildcards.study}: make the page on which people judge {wildcards.method}'s duplicate candidates"
    script:
        "../scripts/review.py"
