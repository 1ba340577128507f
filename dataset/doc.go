// Package dataset reads items and events from files: JSONL, CSV or Parquet, told apart by the ending of the name.
//
// Columns are named like the fields of the records in package schemas, and every row is judged by the rules of those
// records: a row is written down as the JSON text of its record, which the one decoder then reads. What is broken is
// a [*RowError] with file, line (row in Parquet) and reason; the reader decides whether to go on.
//
// The package imports schemas only.
package dataset
