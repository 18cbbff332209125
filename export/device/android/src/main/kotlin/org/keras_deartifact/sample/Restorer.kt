package org.keras_deartifact.sample

import android.content.res.AssetManager
import android.graphics.Bitmap
import com.google.ai.edge.litert.Accelerator
import com.google.ai.edge.litert.CompiledModel
import com.google.ai.edge.litert.LiteRtException
import com.google.ai.edge.litert.Model
import kotlin.math.max
import kotlin.math.min

/**
 * Restores pictures with a LiteRT file of a fixed size, tile by tile, as `keras_deartifact/restore.py` does.
 *
 * The file has the inputs `images`, float32 `(1, height, width, 3)` RGB in `[0, 1]`, and `quantiser_map`, float32
 * `(1, height / 16, width / 16, 1)` log2 steps, in this order, and one output like `images`. It runs on the GPU, or on
 * the CPU where the GPU does not take it. One thread at a time.
 *
 * @param margin what of a tile's result is not used, in pixels, a multiple of 16; less than half of the tile.
 */
class Restorer(assets: AssetManager, asset: String, private val margin: Int = 32) : AutoCloseable {
    private val model = Model.load(assets, asset)
    private val height: Int
    private val width: Int

    /** Where the model runs: "GPU" or "CPU". */
    val accelerator: String
    private val network: CompiledModel

    init {
        val sides = checkNotNull(model.getInputTensorType("images").layout) { "$asset has no sizes" }.dimensions
        height = sides[1]
        width = sides[2]
        require(min(height, width) > 2 * margin) { "$asset: tiles of ${width}x$height leave nothing without margins" }
        var chosen = "GPU"
        network =
            try {
                CompiledModel.create(model, CompiledModel.Options(Accelerator.GPU))
            } catch (_: LiteRtException) {
                chosen = "CPU"
                CompiledModel.create(model, CompiledModel.Options(Accelerator.CPU))
            }
        accelerator = chosen
    }

    private val inputs = network.createInputBuffers()
    private val outputs = network.createOutputBuffers()
    private val values = FloatArray(height * width * 3)

    /**
     * Returns a restored copy.
     *
     * @param picture of any size, `ARGB_8888`, not in hardware memory.
     * @param log2Step log2 of the luma quantiser step that it was compressed with; of H.264 it is (QP - 4) / 6.
     */
    fun restore(picture: Bitmap, log2Step: Float = DEFAULT_LOG2_STEP): Bitmap {
        inputs[1].writeFloat(FloatArray(height / GRID * (width / GRID)) { log2Step })
        val source = IntArray(picture.width * picture.height)
        picture.getPixels(source, 0, picture.width, 0, 0, picture.width, picture.height)
        val result = IntArray(source.size)
        for (rows in spans(roundUp(picture.height), height)) {
            for (columns in spans(roundUp(picture.width), width)) {
                fill(source, picture.width, picture.height, rows.origin, columns.origin)
                inputs[0].writeFloat(values)
                network.run(inputs, outputs)
                val restored = outputs[0].readFloat()
                for (y in rows.begin until min(rows.end, picture.height)) {
                    for (x in columns.begin until min(columns.end, picture.width)) {
                        val from = ((y - rows.origin) * width + (x - columns.origin)) * 3
                        val to = y * picture.width + x
                        val red = level(restored[from])
                        val green = level(restored[from + 1])
                        val blue = level(restored[from + 2])
                        result[to] = (source[to] and OPAQUE) or (red shl 16) or (green shl 8) or blue
                    }
                }
            }
        }
        return Bitmap.createBitmap(result, picture.width, picture.height, Bitmap.Config.ARGB_8888)
    }

    /** Pixels beyond the picture are its last ones, so that a border looks like the codec's own padding. */
    private fun fill(source: IntArray, sourceWidth: Int, sourceHeight: Int, top: Int, left: Int) {
        var to = 0
        for (y in top until top + height) {
            val row = min(y, sourceHeight - 1) * sourceWidth
            for (x in left until left + width) {
                val pixel = source[row + min(x, sourceWidth - 1)]
                values[to++] = (pixel shr 16 and 255) / 255f
                values[to++] = (pixel shr 8 and 255) / 255f
                values[to++] = (pixel and 255) / 255f
            }
        }
    }

    private fun level(value: Float) = (value * 255f + 0.5f).toInt().coerceIn(0, 255)

    private class Span(val origin: Int, val begin: Int, val end: Int)

    /** The tiles along one axis: where they start, and which pixels of the picture they give. */
    private fun spans(size: Int, tile: Int): List<Span> {
        // The last tile is moved back, not cut short: it overlaps more.
        val last = max(0, size - tile)
        val spans = mutableListOf<Span>()
        var begin = 0
        for (origin in (0 until last step tile - 2 * margin) + last) {
            val end = if (origin == last) size else origin + tile - margin
            spans += Span(origin, begin, end)
            begin = end
        }
        return spans
    }

    private fun roundUp(size: Int) = (size + GRID - 1) / GRID * GRID

    override fun close() {
        (inputs + outputs).forEach { it.close() }
        network.close()
        model.close()
    }

    companion object {
        /** As `quantiser.DEFAULT_LOG2_STEP`. */
        const val DEFAULT_LOG2_STEP = 4.5f

        /** Codecs work on blocks of 16x16 at most, and the quantiser map has a value for each. */
        private const val GRID = 16
        private const val OPAQUE = 0xFF shl 24
    }
}
