"""A parser of Hibernate's query language and its translation to PostgreSQL's SQL."""
