// Package stablediffusion turns CLIP image embeddings into pictures with Stable Diffusion 1.5 and IP-Adapter, in ONNX Runtime.
//
// Its graphs are written by tools/stable_diffusion.py; their names and shapes are held against the manifest when a Pipeline is opened. A
// picture is the embedding's image tokens, a walk of the U-Net from noise to a latent with classifier-free guidance towards them, and the
// VAE's decoder, each as diffusers' StableDiffusionPipeline does it. Package sampler reads the manifest and makes pixels of the values.
package stablediffusion
