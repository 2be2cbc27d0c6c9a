"""The prompts that reranking language models were trained on, as their model cards document them.

Written independently of the shipped templates, as a reference for them.
"""


def chat(user: str) -> str:
    """Qwen's chat format, without a system message."""
    return f"<|im_start|>user\n{user}<|im_end|>\n<|im_start|>assistant\n"


def qwen3(query: str, document: str, instruction: str) -> str:
    task = instruction or "Given a web search query, retrieve relevant passages that answer the query"
    return (
        "<|im_start|>system\nJudge whether the Document meets the requirements based on the Query and the Instruct "
        'provided. Note that the answer can only be "yes" or "no".<|im_end|>\n'
        + chat(f"<Instruct>: {task}\n<Query>: {query}\n<Document>: {document}")
        + "<think>\n\n</think>\n\n"
    )


def mxbai(query: str, document: str, instruction: str) -> str:
    lines = [f"instruction: {instruction}"] if instruction else []
    lines += [
        f"query: {query}",
        f"document: {document}",
        "You are a search relevance expert who evaluates how well documents match search queries. For each "
        "query-document pair, carefully analyze the semantic relationship between them, then provide your binary "
        "relevance judgment (0 for not relevant, 1 for relevant).",
        "Relevance:",
    ]
    system = "<|im_start|>system\nYou are Qwen, created by Alibaba Cloud. You are a helpful assistant.<|im_end|>\n"
    return system + chat("\n".join(lines))


def gemma(query: str, document: str, instruction: str) -> str:
    task = instruction or (
        "Given a query A and a passage B, determine whether the passage contains an answer to the query by "
        "providing a prediction of either 'Yes' or 'No'."
    )
    return f"A: {query}\nB: {document}\n{task}"


def jina(query: str, documents: list[str], instruction: str) -> str:
    passages = "\n".join(
        f'<passage id="{number}">\n{document}<|embed_token|>\n</passage>' for number, document in enumerate(documents)
    )
    return (
        "<|im_start|>system\nYou are a search relevance expert who can determine a ranking of the passages based "
        "on how relevant they are to the query. If the query is a question, how relevant a passage is depends on "
        "how well it answers the question. If not, try to analyze the intent of the query and assess how well each "
        "passage satisfies the intent. If an instruction is provided, you should follow the instruction when "
        "determining the ranking.<|im_end|>\n<|im_start|>user\n"
        f"I will provide you with {len(documents)} passages, each indicated by a numerical identifier. "
        f"Rank the passages based on their relevance to query: {query}\n"
        + (f"<instruct>\n{instruction}\n</instruct>\n" if instruction else "")
        + f"{passages}\n<query>\n{query}<|rerank_token|>\n</query>"
        "<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n"
    )
