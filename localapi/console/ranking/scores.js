/** Scores of documents for a query, by models of either kind. */

/** A rerank model reads the query with each document. */
const RERANK = {
  path: "/v1/rerank",
  bodies: (model, query, documents) => [{ model, query, documents }],
  scores: ([{ results }]) => {
    const scores = [];
    for (const { index, relevance_score: score } of results) {
      scores[index] = score;
    }
    return scores;
  },
};

/** An embedding model gives each text a vector; those of texts that are alike have a small angle between them. */
const EMBEDDING = {
  path: "/v1/embeddings",
  bodies: (model, query, documents, inputTypes) => [
    { model, input: [query], ...(inputTypes && { input_type: "query" }) },
    { model, input: documents, ...(inputTypes && { input_type: "document" }) },
  ],
  scores: ([asked, found]) => {
    const vector = asked.data[0].embedding;
    return found.data.toSorted((a, b) => a.index - b.index).map(({ embedding }) => cosine(vector, embedding));
  },
};

/** Requests to models of each kind: {path, bodies(model, query, documents, inputTypes), scores(replies)}. */
export function wayOf(kind) {
  return kind === "rerank" ? RERANK : EMBEDDING;
}

function cosine(one, other) {
  const product = (a, b) => a.reduce((sum, value, index) => sum + value * b[index], 0);
  return product(one, other) / (Math.sqrt(product(one, one) * product(other, other)) || 1);
}
