"""The graders' side of each problem set: inputs and right answers. A submission may not import it."""
