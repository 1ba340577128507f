// Package images makes files of generated pictures and keeps the large ones in a bucket, under the names that their bytes have.
//
// [Format] encodes a picture as PNG or JPEG together with the id of the record it is made for, so that no two records share an object and
// one can go without the other. The service's DESIGN.md says when objects come and go. [Store] writes, reads and deletes objects of a bucket that gocloud.dev/blob opens: file:// and s3:// always,
// gs:// and azblob:// in builds with the tags gcs and azure.
package images
